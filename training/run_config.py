"""The configuration of a run: what is trained on what, measured where, published how."""

from dataclasses import dataclass, field
from pathlib import Path

from service.videoclip.prompts import TEMPLATES
from training.config import ConfigError
from training.recipes.open_vclip import OpenVCLIPSettings
from training.select_lambda import SelectionRule


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """train: a list of videos (CSV with path and label, or a folder of classes)."""

    train: Path
    threads: int = 2
    evaluation: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Where and how the result goes into a model store."""

    name: str
    licence: str
    store: Path = Path("model_store")
    background_labels: tuple[str, ...] = ()
    card: str = ""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run.

    run: folder of the results. clip: the artefact of the CLIP to start from, a folder of a model
    store (`python -m training pull` makes one). frames: T.
    """

    run: Path
    clip: Path
    data: DataConfig
    open_vclip: OpenVCLIPSettings
    frames: int = 8
    template_set: str = "kinetics"
    seed: int = 0
    select: SelectionRule | None = None
    publish: PublishConfig | None = None

    def __post_init__(self) -> None:
        if self.template_set not in TEMPLATES:
            raise ConfigError(
                f"template_set = {self.template_set!r}: one of {', '.join(sorted(TEMPLATES))}"
            )
