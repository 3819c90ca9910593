"""How a step moves the weights: the tables [optimisation] and [regularisation] of a run."""

import math
from dataclasses import dataclass
from typing import Any

from training.config import ConfigError
from training.errors import Refusal
from training.precision import Precision
from training.schedule import FLOOR_SHARE, PEAK_LEARNING_RATE, WARMUP_SHARE, CosineFrom, Shape


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """How weights are moved. The defaults are Open-VCLIP's released ones.

    steps: updates; or epochs: passes over the training list. batch_size: clips of one update, over
    all processes and all parts of it. accumulate: parts that a process computes one after another;
    negatives are only those of the same part. schedule, floor_share, warmup_share,
    warmup_from_share, cosine_from: see `training.schedule.learning_rate`. decay_all: weight decay
    for vectors, too. clip_norm: largest norm of the gradient; 0 for any.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    accumulate: int = 1
    peak_learning_rate: float = PEAK_LEARNING_RATE
    schedule: Shape = "cosine"
    floor_share: float = FLOOR_SHARE
    warmup_share: float = WARMUP_SHARE
    warmup_from_share: float | None = None
    cosine_from: CosineFrom = "warmup"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    decay_all: bool = False
    clip_norm: float = 1.0
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise Refusal("give one of steps and epochs")
        require_positive(
            self, "steps", "epochs", "batch_size", "accumulate", "peak_learning_rate", "epsilon"
        )
        require_not_negative(self, "weight_decay", "clip_norm")
        require_shares(self, "floor_share", "warmup_share", "warmup_from_share")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise Refusal(f"betas = {list(self.betas)}: two numbers from 0 to below 1")

    def steps_for(self, videos: int) -> int:
        """The number of updates, for a training list of this many videos."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * videos / self.batch_size))

    def rows_per_part(self, processes: int) -> int:
        """Clips in one pass of one process. Raises ConfigError unless the batch divides evenly."""
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise ConfigError(
                f"optimisation.batch_size = {self.batch_size}: not a multiple of {processes} "
                f"processes x accumulate = {self.accumulate}"
            )
        return self.batch_size // parts

    def schedule_arguments(self) -> dict[str, Any]:
        """What `training.schedule.learning_rate` takes beside the progress."""
        return {
            "peak": self.peak_learning_rate,
            "shape": self.schedule,
            "floor_share": self.floor_share,
            "warmup_share": self.warmup_share,
            "warmup_from_share": self.warmup_from_share,
            "cosine_from": self.cosine_from,
        }


@dataclass(frozen=True, kw_only=True)
class RegularisationConfig:
    """What keeps the weights near CLIP's. The defaults do nothing: plain fine-tuning.

    interpolation_coefficient: C, the weight of the gradient at the interpolated point; 0 for none.
    interpolation_max: R, the largest share of CLIP in that point. l2_to_clip: c of the penalty
    c/2·‖θ - CLIP‖². Both are refused where a recipe trains weights that CLIP lacks (prompts,
    temporal heads). snapshots: how many points of the way are averaged, from snapshot_start_share
    of it on; 0 for none.
    """

    interpolation_coefficient: float = 0.0
    interpolation_max: float = 0.6
    l2_to_clip: float = 0.0
    snapshots: int = 0
    snapshot_start_share: float = 2 / 22

    def __post_init__(self) -> None:
        require_not_negative(self, "interpolation_coefficient", "l2_to_clip", "snapshots")
        require_shares(self, "interpolation_max", "snapshot_start_share")

    @property
    def looks_at_clip(self) -> bool:
        """Whether CLIP's weights are needed while training."""
        return self.interpolation_coefficient > 0.0 or self.l2_to_clip > 0.0


def require_positive(config: Any, *names: str) -> None:
    """Raise Refusal unless these fields, where given, are above 0."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise Refusal(f"{name} = {value}: must be above 0")


def require_not_negative(config: Any, *names: str) -> None:
    """Raise Refusal unless these fields are 0 or above."""
    for name in names:
        value = getattr(config, name)
        if not (value >= 0 and math.isfinite(value)):
            raise Refusal(f"{name} = {value}: must not be negative")


def require_shares(config: Any, *names: str) -> None:
    """Raise Refusal unless these fields, where given, are within 0 and 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise Refusal(f"{name} = {value}: not within 0 and 1")
