"""What a configuration stands for, built: lists, network, recipe, and the step that trains it."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from service.videoclip.manifest import Preprocessing
from service.videoclip.pooling import Pooling
from service.videoclip.prompts import TEMPLATES
from training import distributed
from training.config import ConfigError
from training.data.batches import batches
from training.data.dataset import FailedVideo
from training.feed import Feed
from training.models.architecture import describe
from training.recipe import Batch, Recipe
from training.run_config import RunConfig, reason_of, recipe_module
from training.start import Start, open_start
from training.step import Step
from training.training_videos import TrainingVideos, in_order, read_training_videos


@dataclass(frozen=True)
class PreparedRun:
    """Everything of a run before its first step."""

    config: RunConfig
    start: Start
    videos: TrainingVideos
    feed: Feed
    recipe: Recipe
    step: Step

    @property
    def architecture(self) -> dict[str, Any]:
        """The network's, complete."""
        return describe(self.start.architecture(_changes(self.config)))

    def batches(self, begin: int, *, on_failure: Callable[[FailedVideo], None]) -> Generator[Batch]:
        """This rank's part of every step's batch, from step number `begin` on.

        on_failure: called with each video that could not be decoded, possibly more than once.
        """
        config = self.config
        for raw in batches(
            self.videos.labelled,
            unlabelled=self.videos.unlabelled if self.recipe.needs_unlabelled else None,
            batch_size=config.optimisation.batch_size,
            seed=config.seed,
            start_step=begin,
            stop_step=self.step.steps,
            rank=distributed.rank(),
            world=distributed.world_size(),
            workers=config.data.workers,
        ):
            for part in (raw, raw.unlabelled):
                for failed in () if part is None else part.failed:
                    on_failure(failed)
            yield self.feed(raw)

    def examples(self, *, on_failure: Callable[[FailedVideo], None]) -> Iterator[Batch]:
        """Clips for `Recipe.begin`, the same ones on every rank.

        on_failure: called with each video that could not be decoded; there is none in its place.
        """
        source = self.videos.examples(self.recipe.examples_per_class)
        rows = self.config.optimisation.rows_per_part(distributed.world_size())
        for raw in in_order(source, batch_size=rows, seed=self.config.seed, on_failure=on_failure):
            yield self.feed(raw)


def prepare(config: RunConfig, *, device: torch.device) -> PreparedRun:
    """Read the lists, load CLIP and build what trains it.

    Raises ConfigError, VideoListError, ArtefactError, or another Refusal for what does not fit.
    """
    config.optimisation.rows_per_part(distributed.world_size())
    start = open_start(config.clip)
    preprocessing = preprocessing_of(config, start)
    videos = read_training_videos(config, preprocessing)
    network = start.network(_changes(config), seed=config.seed).to(device)
    encode = start.encoder(network)
    recipe = recipe_module(config.recipe).recipe(
        network,
        settings=config.settings,
        classes=videos.classes,
        encode=encode,
        templates=TEMPLATES[config.template_set],
        original=start.weights,
        seed=config.seed,
    )
    if recipe.needs_captions and not videos.have_captions:
        raise ConfigError(
            f"data.captions: {config.recipe} learns from captions, and there are none"
        )
    if recipe.needs_unlabelled and videos.unlabelled is None:
        raise ConfigError(f"missing key data.unlabelled: {config.recipe} learns from such videos")
    step = Step(
        recipe,
        steps=config.optimisation.steps_for(videos.largest(unlabelled=recipe.needs_unlabelled)),
        optimisation=config.optimisation,
        regularisation=config.regularisation,
        seed=config.seed,
        original=start.weights,
    )
    feed = Feed(preprocessing, encode=encode, device=device)
    return PreparedRun(
        config=config, start=start, videos=videos, feed=feed, recipe=recipe, step=step
    )


def preprocessing_of(config: RunConfig, start: Start) -> Preprocessing:
    """How pictures are prepared in this run. Raises ConfigError for values that do not go along."""
    changes = config.preprocessing.changes()
    try:
        return Preprocessing.model_validate({**start.preprocessing.model_dump(), **changes})
    except ValueError as error:
        raise ConfigError(f"preprocessing: {reason_of(error)}") from error


def pooling_of(config: RunConfig) -> Pooling:
    """How frame embeddings become one vector in this run's model."""
    default = recipe_module(config.recipe).POOLING
    pooling: Pooling = getattr(config.settings, "pooling", default)
    return pooling


def _changes(config: RunConfig) -> dict[str, Any]:
    return recipe_module(config.recipe).architecture(config.settings)
