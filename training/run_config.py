"""The configuration of a run: what is trained on what, measured where, published how."""

import importlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from service.videoclip.manifest import Sampling, VariantName
from service.videoclip.prompts import TEMPLATES
from training.artefact_name import require_name
from training.config import ConfigError, parse
from training.data.annotations import VideoList
from training.data.augment import AugmentationName
from training.data.clip_sampling import ClipMode
from training.data.few_shot import Subset
from training.evaluate.inputs import EvaluationList
from training.recipe import RecipeModule
from training.selection_rule import SelectionRule
from training.step_config import (
    OptimisationConfig,
    RegularisationConfig,
    require_not_negative,
    require_positive,
)

#: Table of the configuration -> its settings' class, in the module of that name in
#: `training.recipes`. Only the module that a run names is imported.
RECIPES = {
    "open_vclip": "OpenVCLIPSettings",
    "open_vclip_pp": "OpenVCLIPPPSettings",
    "vifi_clip": "ViFiCLIPSettings",
    "fitclip": "FitCLIPSettings",
    "text4vis": "Text4VisSettings",
}

#: A list by its path, or a table with more about it.
ListConfig = Path | VideoList


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Videos to learn from and to measure on; a list is a path or a table, see `VideoList`.

    train: with labels, or with captions alone where the recipe takes those. unlabelled: a second
    source, for recipes that have one. captions: a file of them, for the training videos.
    evaluation: name -> what λ is measured on, a list by its path or an `EvaluationList`. subset:
    which of the training videos are taken.

    sampling, stride_seconds: which moments a training clip shows, see `ClipSampling`.
    augmentation: what is random about its pictures, see `training.data.augment`. workers: processes
    that decode, for each training process; 0 decodes in between. cache: a folder for decoded
    pictures, cache_pictures of each video at most: for sets that are small and read often.
    """

    train: ListConfig
    unlabelled: ListConfig | None = None
    captions: Path | None = None
    evaluation: dict[str, Path | EvaluationList] = field(default_factory=dict)
    subset: Subset = field(default_factory=Subset)
    sampling: ClipMode = "random_segments"
    stride_seconds: float | None = None
    augmentation: AugmentationName = "none"
    workers: int = 2
    cache: Path | None = None
    cache_pictures: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "cache_pictures")
        require_not_negative(self, "workers")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Choosing weights by a loss on other videos (FitCLIP, section 4.1).

    videos: a list like the training list. every: steps between looks. The weights with the lowest
    loss become the tuned end. Only whole batches are looked at.
    """

    videos: ListConfig
    every: int = 30

    def __post_init__(self) -> None:
        require_positive(self, "every")


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """What of the pictures' preparation differs from the model's that the run starts from."""

    resize_size: int | None = None
    interpolation: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that are given."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """Which clips of a video the finished model is shown, measured and served; see `Sampling`."""

    mode: Literal["uniform", "segment_starts", "strided"] = "uniform"
    views: int = 1
    stride_seconds: float | None = None

    def sampling(self, frames: int) -> Sampling:
        """For clips of so many frames. Raises ConfigError for values that do not go together."""
        try:
            return Sampling(
                mode=self.mode,
                frames=frames,
                views=self.views,
                stride_seconds=self.stride_seconds,
            )
        except ValueError as error:
            raise ConfigError(f"clips: {reason_of(error)}") from error


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Where and how the result goes into a model store.

    variants: forms of the graphs in fewer bits to add, "fp16" and "int8". What each loses is
    measured on the sets of data.evaluation that have labels, on variant_videos of each at most; one
    that loses more than variant_loss points of top-1 on any of them is left out, with a line.
    """

    name: str
    licence: str
    store: Path = Path("model_store")
    background_labels: tuple[str, ...] = ()
    card: str = ""
    variants: tuple[VariantName, ...] = ()
    variant_loss: float = 1.0
    variant_videos: int = 256

    def __post_init__(self) -> None:
        require_name(self.name, where="name =")
        require_not_negative(self, "variant_loss")
        require_positive(self, "variant_videos")
        if len(set(self.variants)) < len(self.variants):
            raise ConfigError(f"publish.variants: {', '.join(self.variants)}: one is named twice")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run, with one table of a recipe.

    run: folder of the results. clip: the artefact to start from, a folder of a model store
    (`python -m training pull` makes one). frames: T. checkpoint_every: steps between checkpoints; 0
    for none, without it a tenth of all steps, 500 at most.
    """

    run: Path
    clip: Path
    data: DataConfig
    optimisation: OptimisationConfig
    regularisation: RegularisationConfig = field(default_factory=RegularisationConfig)
    validation: ValidationConfig | None = None
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    open_vclip: dict[str, Any] | None = None
    open_vclip_pp: dict[str, Any] | None = None
    vifi_clip: dict[str, Any] | None = None
    fitclip: dict[str, Any] | None = None
    text4vis: dict[str, Any] | None = None
    frames: int = 8
    template_set: str = "kinetics"
    seed: int = 0
    checkpoint_every: int | None = None
    select: SelectionRule | None = None
    publish: PublishConfig | None = None
    recipe: str = field(init=False)
    settings: Any = field(init=False)

    def __post_init__(self) -> None:
        if self.template_set not in TEMPLATES:
            raise ConfigError(
                f"template_set = {self.template_set!r}: one of {', '.join(sorted(TEMPLATES))}"
            )
        require_positive(self, "frames")
        require_not_negative(self, "seed")
        if self.checkpoint_every is not None:
            require_not_negative(self, "checkpoint_every")
        self.clips.sampling(self.frames)
        if self.validation is not None and self.regularisation.snapshots:
            raise ConfigError(
                "validation, regularisation.snapshots: the tuned weights are the best ones or the "
                "mean, not both"
            )
        unmeasured = set() if self.select is None else self.select.sets() - {*self.data.evaluation}
        if unmeasured:  # said before the training, not after it
            raise ConfigError(
                "select: its rule needs sets that data.evaluation does not name, so they are not "
                f"measured: {', '.join(sorted(unmeasured))}"
            )
        given = [name for name in RECIPES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ConfigError(f"a run has one table of {', '.join(RECIPES)}; found {found}")
        (name,) = given
        schema = getattr(recipe_module(name), RECIPES[name])
        object.__setattr__(self, "recipe", name)
        object.__setattr__(self, "settings", parse(getattr(self, name), schema, where=name))


def recipe_module(name: str) -> RecipeModule:
    """The module of a recipe."""
    module: Any = importlib.import_module(f"training.recipes.{name}")
    return module  # type: ignore[no-any-return]


def as_list(given: ListConfig) -> VideoList:
    """A list that is given by its path alone, or with more."""
    return given if isinstance(given, VideoList) else VideoList(path=given)


def reason_of(error: ValueError) -> str:
    """The first complaint of a pydantic model, without its heading."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    first = errors()[0]
    # Pydantic's own checks do not say of which field they speak; ours do.
    where = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
