"""Learned vectors among the tokens of a tower (ViFi-CLIP, section 3.3: "bridge and prompt")."""

import torch
from torch import Tensor, nn

# Of the released code: normal, whatever the template.
_STD = 0.02


class Prompts(nn.Module):
    """The prompts of one tower: `depth` layers see `length` vectors each.

    context: (length, width), part of the tower's input. deep: (depth - 1, length, width), which
    take the same places before the layers 1 to depth - 1; absent if the depth is 1. After the
    deepest prompted layer the vectors go on like any tokens.
    """

    def __init__(self, *, length: int, depth: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.depth = depth
        self.context = nn.Parameter(torch.empty(length, width).normal_(std=_STD))
        self.deep: nn.Parameter | None = None
        if depth > 1:
            self.deep = nn.Parameter(torch.empty(depth - 1, length, width).normal_(std=_STD))

    def renewed_before(self, layer: int) -> bool:
        """Whether `layer`, from 0, gets vectors of its own; the first gets `context` as input."""
        return 0 < layer < self.depth

    def at(self, layer: int, like: Tensor) -> Tensor:
        """The vectors of a layer below `depth`, (..., length, width), in the type of `like`.

        like: (..., tokens, width), whose leading sizes the result repeats.
        """
        vectors: Tensor = self.context
        if layer > 0:
            assert self.deep is not None
            vectors = self.deep[layer - 1]
        return vectors.to(like.dtype).expand(*like.shape[:-2], -1, -1)
