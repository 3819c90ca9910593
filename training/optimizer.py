"""The update of one step: learning rate, clipping, AdamW, and the running mean of weights."""

import math

import torch
from torch import Tensor, nn

from training.flat_weights import FlatWeights

PEAK_LEARNING_RATE = 3.33e-6
FLOOR_SHARE = 0.01
WARMUP_SHARE = 2 / 22


def learning_rate(
    progress: float,
    *,
    peak: float = PEAK_LEARNING_RATE,
    floor_share: float = FLOOR_SHARE,
    warmup_share: float = WARMUP_SHARE,
) -> float:
    """Linear warm-up from `floor_share * peak` to `peak`, then a cosine back down.

    progress: share of the training that is done, 0 to 1. Source: Open-VCLIP's released schedule,
    where 22 epochs are 2 of warm-up and 20 of cosine.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress: {progress} is not within 0 and 1")
    floor = floor_share * peak
    if progress < warmup_share:
        return floor + (peak - floor) * progress / warmup_share
    done = (progress - warmup_share) / (1.0 - warmup_share) if warmup_share < 1.0 else 1.0
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


class AdamW:
    """Decoupled weight decay over flat weights, with the gradient's norm clipped before it."""

    def __init__(
        self,
        weights: FlatWeights,
        *,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.weights = weights
        groups = []
        for part, decay in (
            (slice(0, weights.decayed), weight_decay),
            (slice(weights.decayed, None), 0.0),
        ):
            if weights.vector[part].numel():
                parameter = nn.Parameter(weights.vector[part])
                parameter.grad = weights.gradient[part]
                groups.append({"params": [parameter], "weight_decay": decay})
        self._adamw = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)

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
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        gradient.zero_()
        return norm


class RunningMean:
    """The mean of weight vectors seen so far, without keeping them."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None

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


def snapshot_steps(steps: int, *, start_share: float, count: int) -> tuple[int, ...]:
    """After which steps (1-based, ascending, no repetition) weights go into the running mean.

    `count` points at equal distances from `start_share * steps` to `steps`. Open-VCLIP's released
    mean is of the ends of epochs 2 to 22 of 22: start_share 2/22, count 21.
    """
    if steps < 1 or count < 1 or not 0.0 <= start_share <= 1.0:
        raise ValueError(f"no snapshots with {steps=}, {start_share=}, {count=}")
    if count == 1:
        return (steps,)
    span = 1.0 - start_share
    points = (steps * (start_share + span * i / (count - 1)) for i in range(count))
    return tuple(sorted({max(1, round(point)) for point in points}))
