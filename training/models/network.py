"""CLIP in open_clip's modules, read as a video model: neighbours, prompts, temporal heads."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.models.architecture import Temporal as Temporal
from training.models.architecture import TemporalHead, temporal_heads_of
from training.models.architecture import describe as describe
from training.models.attention import causal_attention, frame_attention, neighbour_attention
from training.models.perceptron import mlp
from training.models.prompts import Prompts
from training.models.temporal_heads import POSITIONS, TemporalTransformer, TokenConvolution
from training.models.towers import open_clip


class VideoCLIP(nn.Module):
    """open_clip's CLIP, read by this project's own forward pass.

    The state dict is open_clip's, name by name and shape by shape: neighbour attention has no
    parameters of its own. Prompts are added under `prompts` and `visual.prompts`, temporal heads
    under `visual.temporal_head` or each visual block's `control_point`. Build it with `build`.

    gradient_checkpointing: while training, keep only what goes into each block, and run the block
    once more in the backward pass: less memory, about a third more time.
    """

    def __init__(
        self, clip: nn.Module, *, temporal: Temporal, temporal_head: TemporalHead = "none"
    ) -> None:
        super().__init__()
        self.temporal: Temporal = temporal
        self.temporal_head: TemporalHead = temporal_head
        self.gradient_checkpointing = False
        self.visual: Any = clip.visual
        self.transformer: Any = clip.transformer
        self.token_embedding: Any = clip.token_embedding
        self.positional_embedding: Any = clip.positional_embedding
        self.ln_final: Any = clip.ln_final
        self.text_projection: Any = clip.text_projection
        self.logit_scale: Any = clip.logit_scale
        self.prompts: Prompts | None = None

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

    @property
    def context_length(self) -> int:
        """Most tokens of a text, start and end included; text prompts take their places from it."""
        taken = 0 if self.prompts is None else self.prompts.length
        return int(self.positional_embedding.shape[0]) - taken

    @property
    def max_frames(self) -> int | None:
        """Most frames of a clip; None: any number."""
        return POSITIONS if self.temporal_head == "t-trans" else None

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embed the frames of clips, each seeing what `temporal` and `temporal_head` let it see.

        frames: float (B, T, 3, S, S), normalised; any T (t-trans: at most 77). Returns (B, T, D),
        not normalised: one vector per frame, the projected class token; with t-trans, what its
        head makes of it.
        """
        T = frames.shape[1]
        visual = self.visual
        width = visual.class_embedding.shape[0]
        x = visual.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B*T, patches, width)
        first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)
        N = x.shape[1]
        prompts: Prompts | None = getattr(visual, "prompts", None)
        if prompts is not None:
            x = torch.cat([x, prompts.at(0, like=x)], dim=1)  # at the end, without positions
        x = visual.ln_pre(x)
        x = x.view(-1, T, x.shape[1], width)
        blocks = visual.transformer.resblocks
        for i, block in enumerate(blocks):
            if prompts is not None and prompts.renewed_before(i):
                x = torch.cat([x, prompts.at(i, like=x)], dim=2)
            # Only the class token leaves the last layer, so only it asks there; and where the next
            # layer has prompts of its own, this one's ask nothing and end here.
            queries = None
            if i == len(blocks) - 1:
                queries = 1
            elif prompts is not None and prompts.renewed_before(i + 1):
                queries = N
            x = self._run(self._visual_block, block, x, queries)
        out: Tensor = visual.ln_post(x[:, :, 0]) @ visual.proj
        return visual.temporal_head(out) if self.temporal_head == "t-trans" else out

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Embed texts. token_ids: int64 (n, L), L <= context_length, cut to the longest text.

        The end of a text is the position of its largest id. Prompts come between the start token
        and the words, which move back by their number. Returns (n, D), not normalised.
        """
        last = token_ids.argmax(dim=-1)
        x = self.token_embedding(token_ids)
        prompts = self.prompts
        if prompts is not None:
            x = torch.cat([x[:, :1], prompts.at(0, like=x), x[:, 1:]], dim=1)
            last = last + prompts.length
        x = x + self.positional_embedding[: x.shape[1]]
        blocks = self.transformer.resblocks
        for i, block in enumerate(blocks):
            if prompts is not None and prompts.renewed_before(i):
                x = torch.cat([x[:, :1], prompts.at(i, like=x), x[:, 1 + prompts.length :]], dim=1)
            # Only the end of the text leaves the last layer, so only it asks there.
            x = self._run(_text_block, block, x, last if i == len(blocks) - 1 else None)
        return self.ln_final(x[:, 0]) @ self.text_projection  # type: ignore[no-any-return]

    def forward(self, frames: Tensor) -> Tensor:
        """`encode_frames`: the visual tower is what `torch.func.functional_call` is used on."""
        return self.encode_frames(frames)

    def _visual_block(self, block: Any, x: Tensor, queries: int | None) -> Tensor:
        convolve: Callable[[Tensor], Tensor] = (
            block.control_point if self.temporal_head == "token-t1d" else _unchanged
        )
        attend = neighbour_attention if self.temporal == "neighbour" else frame_attention
        x = convolve(x)
        read = x
        if self.temporal_head == "t1d" and hasattr(block, "control_point"):
            read = block.control_point(x)
        x = x[:, :, :queries] + attend(block.attn, block.ln_1(read), queries=queries)
        x = convolve(x)
        return x + mlp(block.mlp, block.ln_2(x))

    def _run(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(function, *arguments, use_reentrant=False)
            return out
        return function(*arguments)


def _text_block(block: Any, x: Tensor, last: Tensor | None) -> Tensor:
    asking = x
    if last is not None:
        asking = x.gather(1, last.view(-1, 1, 1).expand(-1, 1, x.shape[2]))
    x = asking + causal_attention(block.attn, block.ln_1(x), last=last)
    return x + mlp(block.mlp, block.ln_2(x))


def _unchanged(x: Tensor) -> Tensor:
    return x


def build(
    architecture: Mapping[str, Any] | str, *, temporal: Temporal | None = None, seed: int = 0
) -> VideoCLIP:
    """A network with random weights, the same ones for the same seed.

    architecture: the name of an open_clip model, or a dict with embed_dim, vision_cfg, text_cfg and
    optionally

    - quick_gelu: CLIP's own activation (False);
    - temporal: "neighbour" (the default), Open-VCLIP's attention to the frames before and after, or
      "none";
    - temporal_head: "none" (the default), "t-trans", "token-t1d" or "t1d", of Text4Vis;
    - prompts: vision and vision_depth, text and text_depth: how many learned vectors are in the
      tower, and how many of its layers get new ones, of ViFi-CLIP's second stage.

    `temporal` overrides the dict's. Weights of CLIP itself do not depend on the last two.
    Raises ArchitectureError for an unknown name, a key this network does not implement, or sizes
    that do not fit.
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
        network = VideoCLIP(clip, temporal=spec["temporal"], temporal_head=spec["temporal_head"])
        _add_prompts(network, spec["prompts"])
        _add_temporal_head(network, heads=temporal_heads_of(spec))
    return network


def _add_prompts(network: VideoCLIP, sizes: Mapping[str, int] | None) -> None:
    if sizes is None:
        return
    if sizes["text"]:
        network.prompts = Prompts(
            length=sizes["text"],
            depth=sizes["text_depth"],
            width=network.positional_embedding.shape[1],
        )
    if sizes["vision"]:
        network.visual.prompts = Prompts(
            length=sizes["vision"],
            depth=sizes["vision_depth"],
            width=network.visual.class_embedding.shape[0],
        )


def _add_temporal_head(network: VideoCLIP, *, heads: int) -> None:
    visual = network.visual
    if network.temporal_head == "t-trans":
        visual.temporal_head = TemporalTransformer(width=network.embedding_size, heads=heads)
    elif network.temporal_head in ("token-t1d", "t1d"):
        blocks = visual.transformer.resblocks
        every = network.temporal_head == "t1d"
        for block in blocks[len(blocks) // 2 :] if every else blocks:
            block.control_point = TokenConvolution(
                visual.class_embedding.shape[0], all_tokens=every
            )
