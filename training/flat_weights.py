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
    gradient is summed over ranks in one call. Each group of parameters is one of `segments`, in
    the order given. Unused elements between weights stay zero.
    """

    def __init__(self, network: nn.Module, *, groups: Sequence[Sequence[str]]) -> None:
        """groups: names of parameters. Raises ValueError for names that are none."""
        parameters = dict(network.named_parameters())
        missing = sorted({name for group in groups for name in group} - set(parameters))
        if missing:
            raise ValueError(f"not parameters of this network: {missing}")
        chosen = {name: parameters[name] for group in groups for name in group}
        self.shapes = {name: tuple(parameter.shape) for name, parameter in chosen.items()}
        self.offsets: dict[str, int] = {}
        self.segments: list[slice] = []
        size = 0
        for group in groups:
            begin = size
            for name in group:
                self.offsets[name] = size
                size += -(-chosen[name].numel() // _ALIGNMENT) * _ALIGNMENT
            self.segments.append(slice(begin, size))
        first = next(iter(chosen.values()))
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

    def require(self, weights: Mapping[str, Tensor]) -> None:
        """Raise ValueError naming every weight that a mapping lacks or has in another shape."""
        wrong = [
            name
            for name, shape in self.shapes.items()
            if name not in weights or tuple(weights[name].shape) != shape
        ]
        if wrong:
            raise ValueError(f"missing or of another shape: {wrong}")

    def fill(self, vector: Tensor, weights: Mapping[str, Tensor]) -> None:
        """Copy weights that `require` accepts into a vector of this layout, from any device."""
        for name, view in self.views(vector).items():
            view.copy_(weights[name].detach())

    def pack(self, weights: Mapping[str, Tensor]) -> Tensor:
        """A new vector of this layout, filled from a mapping that may hold other weights too.

        Errors as of `require`.
        """
        self.require(weights)
        vector = torch.zeros_like(self.vector)
        self.fill(vector, weights)
        return vector
