"""What decides a reproduction: the tables of ``configs/reproduction.toml``."""

from dataclasses import dataclass
from pathlib import Path

from training.errors import Refusal
from training.precision import Precision
from training.step_config import require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class DrawnWorld:
    """How much of Motion World is drawn; it is filmed as the demo's is.

    seed: of everything drawn; not the demo's, whose videos CLIP and λ were chosen with.
    source_videos, target_videos: to learn from. validation_videos: of the source, for FitCLIP's
    student. test_videos: of each set that is measured.
    """

    seed: int
    source_videos: int
    target_videos: int
    validation_videos: int
    test_videos: int

    def __post_init__(self) -> None:
        require_positive(self, "source_videos", "target_videos", "validation_videos", "test_videos")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all runs share, so that what differs between two of them is what a paper changed.

    steps: of a run on the whole source; few_steps: of a run on a few videos of each class.
    peak_learning_rate: of CLIP's own weights in every run but FitCLIP's and the prompts'.
    """

    steps: int
    few_steps: int
    batch_size: int
    peak_learning_rate: float
    fitclip_learning_rate: float
    prompt_learning_rate: float
    shots: tuple[int, ...]
    l2_to_clip: float
    snapshots: int
    snapshot_start_share: float
    precision: Precision

    def __post_init__(self) -> None:
        require_positive(
            self,
            *("steps", "few_steps", "batch_size", "snapshots"),
            *("peak_learning_rate", "fitclip_learning_rate", "prompt_learning_rate"),
        )
        require_not_negative(self, "l2_to_clip")
        if len(self.shots) < 2 or list(self.shots) != sorted(set(self.shots)) or self.shots[0] < 1:
            raise Refusal(f"shots = {list(self.shots)}: two numbers or more, ascending from 1")


@dataclass(frozen=True, kw_only=True)
class ReproductionConfig:
    """Everything that decides the figures, but the CLIP itself.

    clip: an artefact whose λ = 1 is Motion World's CLIP. processes: runs at a time, each on one
    thread. clip_weights: λ of the curves, without 1: that is CLIP itself whatever was trained.
    sentence_encoder: folder of a model for Text4Vis's
    "sentences"; that row stays empty without one.
    """

    clip: Path
    seeds: tuple[int, ...]
    processes: int
    template_set: str
    clip_weights: tuple[float, ...]
    world: DrawnWorld
    training: TrainingSettings
    sentence_encoder: Path | None = None

    def __post_init__(self) -> None:
        require_positive(self, "processes")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise Refusal(f"seeds = {list(self.seeds)}: one or more, none twice, none below 0")
        weights = set(self.clip_weights)
        if not {0.0, 0.5} <= weights or min(weights) < 0.0 or max(weights) >= 1.0:
            raise Refusal(
                f"clip_weights = {list(self.clip_weights)}: from 0 to below 1, 0 and 0.5 among them"
            )
