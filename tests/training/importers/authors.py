"""What the authors' files are made of, small, and references made of open_clip and plain torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.tokenizing import Tokenizer
from tests.training.tiny import ARCHITECTURE, tiny_weights
from training.__main__ import main
from training.foreign_model import Options
from training.importers import Imported, import_checkpoint
from training.models.towers import open_clip
from training.start import Start, open_start

State = dict[str, Tensor]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
LABELS = ("red", "a fox", "of red")
CONTEXT = ARCHITECTURE["text_cfg"]["context_length"]


def clip_weights() -> State:
    """The CLIP in the tiny artefact."""
    return tiny_weights()[0]


def fine_tuned(*, trained: Callable[[str], bool] = lambda _: True, seed: int = 3) -> State:
    """CLIP after a fine-tuning: every trained weight is a little away from it."""
    generator = torch.Generator().manual_seed(seed)
    tuned = {}
    for name, tensor in clip_weights().items():
        noise = torch.randn(tensor.shape, generator=generator) * 0.1 * float(tensor.abs().mean())
        tuned[name] = tensor + noise if trained(name) else tensor.clone()
    return tuned


def drawn(*shape: int, seed: int = 0, size: float = 0.3) -> Tensor:
    """Weights that CLIP does not have."""
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def visual(name: str) -> bool:
    """Whether a weight is of the visual tower."""
    return name.startswith("visual.")


def plain(weights: Mapping[str, Tensor]) -> Any:
    """open_clip's own network with these weights."""
    towers = open_clip()
    clip = towers.CLIP(
        embed_dim=ARCHITECTURE["embed_dim"],
        vision_cfg=towers.CLIPVisionCfg(**ARCHITECTURE["vision_cfg"]),
        text_cfg=towers.CLIPTextCfg(**ARCHITECTURE["text_cfg"]),
        quick_gelu=True,
    )
    clip.load_state_dict(dict(weights), strict=True)
    return clip.eval()


def at(clip_weight: float, tuned: Mapping[str, Tensor]) -> State:
    """λ CLIP + (1 - λ) tuned, name by name."""
    clip = clip_weights()
    return {n: clip_weight * clip[n] + (1 - clip_weight) * t for n, t in tuned.items()}


def pictures(frames: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of one video, uint8 (T, 40, 40, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, 40, 40, 3), dtype=np.uint8)


def pixels(frames: NDArray[np.uint8], *, mean: Any = CLIP_MEAN, std: Any = CLIP_STD) -> Tensor:
    """(x / 255 - mean) / std, channels first: (T, 3, 40, 40)."""
    levels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return (levels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    result: Tensor = x / x.norm(dim=-1, keepdim=True)
    return result


def attention(block: Any, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A block's attention by torch's own function; x (n, L, D), normalised."""
    attn = block.attn
    y = x.transpose(0, 1)
    out, _ = F.multi_head_attention_forward(
        query=y,
        key=y,
        value=y,
        embed_dim_to_check=y.shape[-1],
        num_heads=attn.num_heads,
        in_proj_weight=attn.in_proj_weight,
        in_proj_bias=attn.in_proj_bias,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attn.out_proj.weight,
        out_proj_bias=attn.out_proj.bias,
        attn_mask=mask,
        need_weights=False,
    )
    return out.transpose(0, 1)


def token_ids(folder: Path, sentences: Sequence[str]) -> Tensor:
    """Ids of sentences, padded with zeros to CLIP's whole context."""
    ids, _ = Tokenizer(folder / "tokenizer.json", CONTEXT).encode(list(sentences))
    padded = torch.zeros(len(ids), CONTEXT, dtype=torch.int64)
    padded[:, : ids.shape[1]] = torch.from_numpy(ids)
    return padded


def classifier(clip: Any, folder: Path, templates: Sequence[str]) -> Tensor:
    """Unit rows of `LABELS`: normalise, mean over templates, normalise."""
    rows = []
    for label in LABELS:
        ids = token_ids(folder, [template.replace("{}", label) for template in templates])
        rows.append(unit(unit(clip.encode_text(ids)).mean(0)))
    return torch.stack(rows)


def clip_folder(store: Path) -> Path:
    """Where the tiny artefact is."""
    (folder,) = store.glob("tiny/*")
    return folder


def original(store: Path) -> Start:
    """The tiny artefact, opened."""
    return open_start(clip_folder(store))


def read(format_name: str, path: Path, store: Path, **options: Any) -> Imported:
    """Import without publishing."""
    return import_checkpoint(
        format_name, path, original=original(store), options=Options(**options)
    )


def published(format_name: str, path: Path, store: Path, *flags: str) -> Path:
    """Import by the command line into a store beside the file; the artefact's folder."""
    target = path.parent / "model_store"
    arguments = ["import", format_name, path, "--clip", clip_folder(store), "--store", target]
    assert main([*(str(argument) for argument in arguments), *flags]) == 0
    (folder,) = (path for path in target.glob("*/*") if path.is_dir())
    return folder
