"""θ(λ) for state dicts of tensors; the arithmetic is the service's own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from service.videoclip import interpolation


def interpolate(
    clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, clip_weight: float
) -> dict[str, Tensor]:
    """clip_weight * clip + (1 - clip_weight) * tuned, both ends bit for bit; new CPU tensors.

    Raises ValueError for a weight outside 0 to 1, or names, shapes and types that differ (all are
    listed).
    """
    mixed = interpolation.interpolate(
        {name: tensor.detach().cpu().numpy() for name, tensor in clip.items()},
        {name: tensor.detach().cpu().numpy() for name, tensor in tuned.items()},
        clip_weight=clip_weight,
    )
    # torch.tensor copies: at the ends the arrays are the arguments' own memory.
    return {name: torch.tensor(array) for name, array in mixed.items()}
