"""The two layers between attentions, with QuickGELU in the form that is fast to train."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.towers import open_clip

_SLOPE = 1.702


def mlp(block: Any, x: Tensor) -> Tensor:
    """open_clip's `mlp` of a block. x: (..., D) -> (..., D).

    QuickGELU is x * sigmoid(1.702 x) = silu(1.702 x) / 1.702. While training, the two factors go
    into the matrix products, which leaves one pass over the hidden layer, and one copy of it kept
    for the backward pass, instead of three.
    """
    if not torch.is_grad_enabled() or not isinstance(block.gelu, open_clip().transformer.QuickGELU):
        out: Tensor = block(x)
        return out
    first, second = block.c_fc, block.c_proj
    flat = x.flatten(0, -2)
    hidden = torch.addmm(first.bias, flat, first.weight.t(), alpha=_SLOPE, beta=_SLOPE)
    hidden = F.silu(hidden)
    flat = torch.addmm(second.bias, hidden, second.weight.t(), alpha=1.0 / _SLOPE)
    return flat.view(x.shape)
