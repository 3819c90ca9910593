"""The update of one step: parameter groups, clipping, AdamW, and the running mean of weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.flat_weights import FlatWeights


@dataclass(frozen=True)
class Group:
    """Weights that are updated alike: names, factor of the learning rate, weight decay."""

    names: tuple[str, ...]
    rate_factor: float
    weight_decay: float


def group_weights(
    network: nn.Module, rate_factors: Mapping[str, float], *, weight_decay: float, decay_all: bool
) -> tuple[Group, ...]:
    """Sort trained weights, given with their factors of the learning rate, into groups.

    decay_all: every weight decays (ViFi-CLIP's and Text4Vis's code); else vectors are spared, as
    `is_decayed` says. Raises ValueError for names that are no parameters, and for none at all.
    """
    parameters = dict(network.named_parameters())
    missing = sorted(set(rate_factors) - set(parameters))
    if missing or not rate_factors:
        raise ValueError(f"not parameters of this network: {missing}" if missing else "no weights")
    groups: dict[tuple[float, float], list[str]] = {}
    # What decays comes first, in the order of the factors' first mention.
    for spared in (False, True):
        for name, factor in rate_factors.items():
            if spared is not (decay_all or is_decayed(parameters[name])):
                decay = 0.0 if spared else weight_decay
                groups.setdefault((factor, decay), []).append(name)
    return tuple(
        Group(names=tuple(names), rate_factor=factor, weight_decay=decay)
        for (factor, decay), names in groups.items()
    )


def is_decayed(parameter: Tensor) -> bool:
    """Whether AdamW decays it: everything but vectors, as Open-VCLIP's code does it.

    One-dimensional weights (biases, norms, the class embedding) do not decay. The logit scale has
    no dimensions at all, and does.
    """
    return parameter.dim() != 1


class AdamW:
    """Decoupled weight decay over flat weights, with the gradient's norm clipped before it."""

    def __init__(
        self,
        weights: FlatWeights,
        groups: Sequence[Group],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """groups: in the order in which `weights` was laid out."""
        self.weights = weights
        self._factors = [group.rate_factor for group in groups]
        described = []
        for group, segment in zip(groups, weights.segments, strict=True):
            parameter = nn.Parameter(weights.vector[segment])
            parameter.grad = weights.gradient[segment]
            described.append({"params": [parameter], "weight_decay": group.weight_decay})
        self._adamw = torch.optim.AdamW(described, lr=0.0, betas=betas, eps=eps, fused=True)

    def step(self, *, learning_rate: float, clip_norm: float | None) -> float:
        """Update the weights from `weights.gradient`; returns its norm before clipping.

        The gradient is zero afterwards. Raises FloatingPointError, and changes nothing, when it is
        not finite.
        """
        gradient = self.weights.gradient
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}: the training has diverged")
        if clip_norm is not None and norm > clip_norm:
            gradient.mul_(clip_norm / (norm + 1e-6))
        for group, factor in zip(self._adamw.param_groups, self._factors, strict=True):
            group["lr"] = learning_rate * factor
        self._adamw.step()
        gradient.zero_()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Both moments and the number of updates of every group; no copies. Empty before step 1."""
        return {
            f"{i}.{name}": tensor
            for i, group in enumerate(self._adamw.param_groups)
            for name, tensor in self._adamw.state[group["params"][0]].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for i, group in enumerate(self._adamw.param_groups):
            (parameter,) = group["params"]
            found = {
                name.partition(".")[2]: tensor.to(parameter.device)
                for name, tensor in state.items()
                if name.startswith(f"{i}.")
            }
            if found:
                self._adamw.state[parameter] = found


class RunningMean:
    """The mean of weight vectors seen so far, without keeping them."""

    def __init__(self, mean: Tensor | None = None, *, count: int = 0) -> None:
        """mean, count: of the vectors that were seen before; the mean is changed in place."""
        self.count = count
        self._mean = mean

    def add(self, vector: Tensor) -> None:
        """Take one more vector into the mean."""
        self.count += 1
        if self._mean is None:
            self._mean = vector.detach().clone()
        else:
            self._mean.lerp_(vector.detach(), 1.0 / self.count)

    @property
    def mean(self) -> Tensor:
        """The mean. Raises ValueError when nothing was added."""
        if self._mean is None:
            raise ValueError("a mean of nothing: no weights were added")
        return self._mean
