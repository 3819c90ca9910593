"""What λ = 1 means for weights that CLIP does not have."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.models.network import build
from training.weights import require_names

_PROMPTS = ("prompts.", "visual.prompts.")
_HEAD = "visual.temporal_head."
_CONTROL_POINT = ".control_point."
# Without these a block of T-Trans adds nothing to what goes into it.
_ADDED = (
    "frame_position_embeddings.weight",
    ".attn.out_proj.weight",
    ".attn.out_proj.bias",
    ".mlp.c_proj.weight",
    ".mlp.c_proj.bias",
)


def clip_end(
    architecture: Mapping[str, Any] | str,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """CLIP's weights, completed so that both ends of λ have the names of `architecture`.

    clip: CLIP's own state dict, and possibly some of what is added; it is taken where it is there.
    tuned: the whole state dict at λ = 0. What CLIP lacks becomes

    - a convolution over time (token-t1d, t1d): the identity, so λ = 1 is CLIP bit for bit;
    - T-Trans: zero positions and zero projections back into the residual stream, the rest as tuned.
      The head then gives twice each frame vector, which is CLIP's direction, and fades in evenly as
      λ goes to 0;
    - prompts: the tuned ones at both ends. CLIP has none, and prompts cannot be small: λ = 1 is
      CLIP with them.

    Returns new tensors, float32. Raises WeightsError when weights of CLIP or tuned ones are
    missing, unknown or of another shape, ArchitectureError for the architecture.
    """
    with torch.device("meta"):
        expected = build(architecture).state_dict()
    require_names(tuned, expected=expected, where="tuned weights")
    added = {name for name in expected if _is_added(name)}
    plain = {name: tensor for name, tensor in expected.items() if name not in added}
    given = {name: tensor for name, tensor in expected.items() if name in clip}
    require_names(clip, expected={**plain, **given}, where="CLIP's weights")
    completed = {
        name: clip[name] if name in clip else _of_clip(name, tuned[name]) for name in expected
    }
    return {name: tensor.detach().float().clone() for name, tensor in completed.items()}


def _is_added(name: str) -> bool:
    return name.startswith((*_PROMPTS, _HEAD)) or _CONTROL_POINT in name


def _of_clip(name: str, tuned: Tensor) -> Tensor:
    if _CONTROL_POINT in name:
        identity = torch.zeros_like(tuned)
        identity[:, :, tuned.shape[2] // 2] = 1
        return identity
    if name.startswith(_HEAD) and name.endswith(_ADDED):
        return torch.zeros_like(tuned)
    return tuned
