"""CLIP in open_clip's modules, with neighbour-frame attention in the visual tower."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.models.attention import causal_attention, frame_attention, neighbour_attention
from training.models.perceptron import mlp
from training.models.towers import open_clip

Temporal = Literal["neighbour", "none"]

_TOP_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "temporal"}
_VISION_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


class VideoCLIP(nn.Module):
    """open_clip's CLIP, read by this project's own forward pass.

    The state dict is open_clip's, name by name and shape by shape: neighbour attention has no
    parameters of its own. Build it with `build`.
    """

    def __init__(self, clip: nn.Module, *, temporal: Temporal) -> None:
        super().__init__()
        self.temporal: Temporal = temporal
        self.visual: Any = clip.visual
        self.transformer: Any = clip.transformer
        self.token_embedding: Any = clip.token_embedding
        self.positional_embedding: Any = clip.positional_embedding
        self.ln_final: Any = clip.ln_final
        self.text_projection: Any = clip.text_projection
        self.logit_scale: Any = clip.logit_scale
        self.context_length: int = int(clip.context_length)  # type: ignore[arg-type]

    @property
    def image_size(self) -> int:
        """Side of the square frames this network takes, in pixels."""
        return int(self.visual.image_size[0])

    @property
    def embedding_size(self) -> int:
        """D, the size of the space that frames and texts share."""
        return int(self.visual.proj.shape[1])

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return int(self.token_embedding.weight.shape[0])

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embed the frames of clips, each seeing its two neighbours if `temporal` says so.

        frames: float (B, T, 3, S, S), normalised; any T. Returns (B, T, D), not normalised: one
        vector per frame, the projected class token.
        """
        T = frames.shape[1]
        visual = self.visual
        width = visual.class_embedding.shape[0]
        x = visual.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B*T, patches, width)
        first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)
        x = visual.ln_pre(x)
        x = x.view(-1, T, x.shape[1], width)
        attend = neighbour_attention if self.temporal == "neighbour" else frame_attention
        blocks = visual.transformer.resblocks
        for i, block in enumerate(blocks):
            # Only the class token leaves the last layer, so only it asks there.
            queries = 1 if i == len(blocks) - 1 else None
            x = x[:, :, :queries] + attend(block.attn, block.ln_1(x), queries=queries)
            x = x + mlp(block.mlp, block.ln_2(x))
        return visual.ln_post(x[:, :, 0]) @ visual.proj  # type: ignore[no-any-return]

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Embed texts. token_ids: int64 (n, L), L <= context_length, cut to the longest text.

        The end of a text is the position of its largest id. Returns (n, D), not normalised.
        """
        L = token_ids.shape[1]
        last = token_ids.argmax(dim=-1)
        x = self.token_embedding(token_ids) + self.positional_embedding[:L]
        blocks = self.transformer.resblocks
        for i, block in enumerate(blocks):
            # Only the end of the text leaves the last layer, so only it asks there.
            if i < len(blocks) - 1:
                x = x + causal_attention(block.attn, block.ln_1(x), last=None)
            else:
                end = x.gather(1, last.view(-1, 1, 1).expand(-1, 1, x.shape[2]))
                x = end + causal_attention(block.attn, block.ln_1(x), last=last)
            x = x + mlp(block.mlp, block.ln_2(x))
        return self.ln_final(x[:, 0]) @ self.text_projection  # type: ignore[no-any-return]

    def forward(self, frames: Tensor) -> Tensor:
        """`encode_frames`: the visual tower is what `torch.func.functional_call` is used on."""
        return self.encode_frames(frames)


def build(
    architecture: Mapping[str, Any] | str, *, temporal: Temporal | None = None, seed: int = 0
) -> VideoCLIP:
    """A network with random weights, the same ones for the same seed.

    architecture: a dict with embed_dim, vision_cfg, text_cfg and optionally quick_gelu (False) and
    temporal ("neighbour"); or the name of an open_clip model. `temporal` overrides the dict's.
    Raises ValueError for an unknown name, a key this network does not implement, or sizes that do
    not divide.
    """
    spec = describe(architecture, temporal=temporal)
    towers = open_clip()
    with torch.random.fork_rng(devices=[]):  # the caller's generator is left as it is
        torch.manual_seed(seed)
        clip = towers.CLIP(
            embed_dim=spec["embed_dim"],
            vision_cfg=towers.CLIPVisionCfg(**spec["vision_cfg"]),
            text_cfg=towers.CLIPTextCfg(**spec["text_cfg"]),
            quick_gelu=spec["quick_gelu"],
        )
    return VideoCLIP(clip, temporal=spec["temporal"])


def describe(
    architecture: Mapping[str, Any] | str, *, temporal: Temporal | None = None
) -> dict[str, Any]:
    """The complete, checked architecture dict that `build` takes and the manifest records."""
    if isinstance(architecture, str):
        config = open_clip().get_model_config(architecture)
        if config is None:
            raise ValueError(f"architecture: open_clip has no model named {architecture!r}")
        # get_model_config returns the registered dict itself, or a copy: never hand it out.
        architecture = dict(config)
    spec = dict(architecture)
    spec["vision_cfg"] = dict(spec.get("vision_cfg", {}))
    spec["text_cfg"] = dict(spec.get("text_cfg", {}))
    spec.setdefault("quick_gelu", False)
    spec["temporal"] = temporal or spec.get("temporal", "neighbour")
    _check_keys(spec, known=_TOP_KEYS, where="architecture")
    _check_keys(spec["vision_cfg"], known=_VISION_KEYS, where="architecture.vision_cfg")
    _check_keys(spec["text_cfg"], known=_TEXT_KEYS, where="architecture.text_cfg")
    if spec["temporal"] not in ("neighbour", "none"):
        raise ValueError(
            f"architecture.temporal: {spec['temporal']!r} is neither 'neighbour' nor 'none'"
        )
    _check_sizes(spec)
    return spec


def _check_keys(config: Mapping[str, Any], *, known: set[str], where: str) -> None:
    unknown = sorted(set(config) - known)
    if unknown:
        raise ValueError(f"{where}: not supported: {', '.join(unknown)}; known: {sorted(known)}")


def _check_sizes(spec: Mapping[str, Any]) -> None:
    vision, text = spec["vision_cfg"], spec["text_cfg"]
    for where, value in (("embed_dim", spec.get("embed_dim")), *vision.items(), *text.items()):
        if not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"architecture: {where} must be a positive number, got {value!r}")
    pairs = (
        ("image_size", vision.get("image_size", 224), "patch_size", vision.get("patch_size", 16)),
        ("vision width", vision.get("width", 768), "head_width", vision.get("head_width", 64)),
        ("text width", text.get("width", 512), "heads", text.get("heads", 8)),
    )
    for name, value, divisor_name, divisor in pairs:
        if value % divisor:
            raise ValueError(
                f"architecture: {name} {value} is not a multiple of {divisor_name} {divisor}"
            )
