"""A network's trained weights as views of one vector: sums over the network are one call."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

# Every weight starts at a multiple of this many elements: 64 bytes of fp32, one vector register.
_ALIGNMENT = 16


class FlatWeights:
    """Some parameters of a network, laid out in one vector with one gradient beside it.

    The parameters keep working as before: they and their `.grad` become views. Interpolating,
    averaging, clipping and updating are then single operations on `vector` and `gradient`, and a
    gradient is summed over ranks in one call. Parameters that get weight decay come first, in
    `vector[:decayed]`. Unused elements between weights stay zero.
    """

    def __init__(self, network: nn.Module, *, names: Sequence[str]) -> None:
        parameters = dict(network.named_parameters())
        missing = sorted(set(names) - set(parameters))
        if missing:
            raise ValueError(f"not parameters of this network: {missing}")
        chosen = {n: parameters[n] for n in names}
        # Matrices first: AdamW treats the two parts as two groups. See `is_decayed`.
        order = sorted(chosen, key=lambda n: not is_decayed(chosen[n]))
        self.shapes = {n: tuple(chosen[n].shape) for n in order}
        self.offsets: dict[str, int] = {}
        size = self.decayed = 0
        for name in order:
            self.offsets[name] = size
            size += -(-chosen[name].numel() // _ALIGNMENT) * _ALIGNMENT
            if is_decayed(chosen[name]):
                self.decayed = size
        first = chosen[order[0]]
        self.vector = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.vector)
        gradients = self.views(self.gradient)
        for name, view in self.views(self.vector).items():
            view.copy_(chosen[name].detach())
            chosen[name].data = view
            chosen[name].grad = gradients[name]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The weights inside a vector of this layout, by name, without copying."""
        return {
            name: vector[at : at + torch.Size(self.shapes[name]).numel()].view(self.shapes[name])
            for name, at in self.offsets.items()
        }

    def pack(self, weights: Mapping[str, Tensor]) -> Tensor:
        """A new vector of this layout, filled from a mapping that may hold other weights too.

        Raises ValueError naming every weight that is missing or has another shape.
        """
        wrong = [
            name
            for name, shape in self.shapes.items()
            if name not in weights or tuple(weights[name].shape) != shape
        ]
        if wrong:
            raise ValueError(f"missing or of another shape: {wrong}")
        vector = torch.zeros_like(self.vector)
        for name, view in self.views(vector).items():
            view.copy_(weights[name].detach())
        return vector


def is_decayed(parameter: Tensor) -> bool:
    """Whether AdamW decays it: everything but vectors, as Open-VCLIP's code does it.

    One-dimensional weights (biases, norms, the class embedding) do not decay. The logit scale has
    no dimensions at all, and does.
    """
    return parameter.dim() != 1
