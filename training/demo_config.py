"""What decides the demo model: the tables of ``configs/demo.toml``."""

from dataclasses import dataclass

from training.precision import Precision
from training.recipes import clip
from training.step_config import OptimisationConfig, RegularisationConfig


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How much is drawn, and how it is filmed."""

    pictures: int
    source_videos: int
    validation_videos: int
    test_videos: int
    pixels: int
    frames: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of both towers; ``merges`` is the most the tokenizer may learn."""

    embed_dim: int
    quick_gelu: bool
    temporal: str
    merges: int
    vision: dict[str, int]
    text: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """What of Open-VCLIP's training differs from the released one; see `training.run_config`."""

    steps: int
    batch_size: int
    peak_learning_rate: float
    interpolation_coefficient: float
    interpolation_max: float
    snapshot_start_share: float
    snapshots: int
    precision: Precision

    def optimisation(self) -> OptimisationConfig:
        """How weights are moved."""
        return OptimisationConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            peak_learning_rate=self.peak_learning_rate,
            precision=self.precision,
        )

    def regularisation(self) -> RegularisationConfig:
        """What keeps them near CLIP's."""
        return RegularisationConfig(
            interpolation_coefficient=self.interpolation_coefficient,
            interpolation_max=self.interpolation_max,
            snapshots=self.snapshots,
            snapshot_start_share=self.snapshot_start_share,
        )


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Everything that decides the demo model.

    forgetting_points: how far attributes may fall below CLIP's own when λ is chosen, in points.
    """

    seed: int
    processes: int
    template_set: str
    forgetting_points: float
    world: WorldConfig
    network: NetworkConfig
    clip: clip.CLIPSettings
    open_vclip: TuningConfig
