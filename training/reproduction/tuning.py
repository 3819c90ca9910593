"""One run of the grid, trained: CLIP's weights and tuned ones, in memory."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.videoclip.pooling import Pooling
from service.videoclip.prompts import TEMPLATES
from training.config import parse
from training.data.few_shot import Subset
from training.fine_tuning import updates
from training.frozen_classifiers import FrozenClassifier
from training.models.endpoints import clip_end
from training.models.network import VideoCLIP
from training.pixels import Pixels
from training.precision import autocast
from training.recipe import Batch, Encode, Recipe
from training.recipes import text4vis
from training.reproduction.config import ReproductionConfig
from training.reproduction.grid import End, Run
from training.reproduction.words import word_rows
from training.reproduction.world import Clips, World
from training.run_config import RECIPES, recipe_module
from training.start import Start
from training.step import Step
from training.workshop import FRAMES

_LDA_VIDEOS = 60
_VALIDATE_EVERY = 30


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came of a run.

    clip: the λ = 1 end. ends: by name, the λ = 0 ends. network: to load them into. rows: of a
    classifier that no text tower can make, else None. losses: of every step.
    """

    network: VideoCLIP
    clip: dict[str, Tensor]
    ends: dict[End, dict[str, Tensor]]
    pooling: Pooling
    encode: Encode
    templates: tuple[str, ...]
    rows: FrozenClassifier | None
    losses: tuple[float, ...]


def tune(
    run: Run,
    seed: int,
    *,
    config: ReproductionConfig,
    world: World,
    start: Start,
    stage_one: Path | None,
) -> Tuned:
    """Train a run with a seed. stage_one: a file of weights, for runs that begin with another's.

    Raises FloatingPointError when the training diverges, Refusal for settings that do not fit.
    """
    module: Any = recipe_module(run.recipe)
    chosen = dict(run.settings)
    if stage_one is not None:
        chosen["stage_one"] = str(stage_one)
    settings = parse(chosen, getattr(module, RECIPES[run.recipe]), where=run.name)
    changes = module.architecture(settings)
    network = start.network(changes, seed=seed)
    encode = start.encoder(network)
    templates = TEMPLATES[run.templates or config.template_set]
    clips = _learnt(run, seed, world)
    if run.rows is None:
        recipe: Recipe = module.recipe(
            network,
            settings=settings,
            classes=clips.classes,
            encode=encode,
            templates=templates,
            original=start.weights,
            seed=seed,
        )
    else:
        rows = word_rows(clips.classes, size=network.embedding_size, seed=seed)
        recipe = text4vis.Text4Vis(
            network, settings=settings, classes=clips.classes, original=start.weights, rows=rows
        )
    pixels = Pixels(world.preprocessing)
    if recipe.examples_per_class:
        recipe.begin(_in_order(clips.first(_LDA_VIDEOS), pixels))
    begun = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step = Step(
        recipe,
        steps=run.steps(config.training),
        optimisation=run.optimisation_config(config.training),
        regularisation=run.regularisation_config(),
        seed=seed,
        original=start.weights,
    )
    batches = _batches(
        clips,
        batch_size=config.training.batch_size,
        seed=seed,
        pixels=pixels,
        encode=encode if recipe.needs_captions else None,
        unlabelled=world.source if recipe.needs_unlabelled else None,
    )
    student = _Student(step, world, pixels, encode) if run.recipe == "fitclip" else None
    losses = []
    for number, report in updates(step, batches):
        losses.append(report.loss)
        if student is not None:
            student.look(number + 1)
    network.eval()
    last = step.weights.vector if student is None else student.best
    ends: dict[End, dict[str, Tensor]] = {"last": step.network_state(last)}
    if step.mean.count:
        ends["mean"] = step.network_state(step.mean.mean)
    original: Mapping[str, Tensor] = begun if stage_one is not None else start.weights
    # Frozen rows that CLIP's text tower did not make can be asked for their own classes alone.
    own_rows = run.rows is not None or run.settings.get("classifier", "clip-text") != "clip-text"
    return Tuned(
        network=network,
        clip=clip_end(start.architecture(changes), original, ends["last"]),
        ends=ends,
        pooling=getattr(settings, "pooling", module.POOLING),
        encode=encode,
        templates=templates,
        rows=recipe.classifier if own_rows and isinstance(recipe, text4vis.Text4Vis) else None,
        losses=tuple(losses),
    )


def _learnt(run: Run, seed: int, world: World) -> Clips:
    clips = world.source if run.data == "source" else world.target
    if run.data == "base":
        clips = clips.of(Subset(classes="base"))  # the same half for all seeds
    return clips if run.shots is None else clips.of(Subset(shots=run.shots, seed=seed))


def _batches(
    clips: Clips,
    *,
    batch_size: int,
    seed: int,
    pixels: Pixels,
    encode: Encode | None,
    unlabelled: Clips | None,
) -> Iterator[Batch]:
    """Endless shuffled batches: every pass sees each clip once, a random frame of each segment."""
    own = _rows(len(clips.labels), batch_size=batch_size, rng=np.random.default_rng([seed, 3]))
    other: Iterator[np.ndarray[Any, np.dtype[np.int64]]] | None = None
    if unlabelled is not None:
        rng = np.random.default_rng([seed, 4])
        other = _rows(len(unlabelled.labels), batch_size=batch_size, rng=rng)
    moments = np.random.default_rng([seed, 5])
    while True:
        batch = _batch(clips, next(own), moments, pixels, encode)
        if unlabelled is not None and other is not None:
            second = _batch(unlabelled, next(other), moments, pixels, encode)
            batch = replace(batch, unlabelled=replace(second, labels=None))
        yield batch


def _rows(
    count: int, *, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _batch(
    clips: Clips,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    rng: np.random.Generator,
    pixels: Pixels,
    encode: Encode | None,
) -> Batch:
    per_segment = clips.frames.shape[1] // FRAMES
    shown = np.arange(FRAMES) * per_segment + rng.integers(0, per_segment, (len(rows), FRAMES))
    return Batch(
        frames=pixels(torch.from_numpy(clips.frames[rows[:, None], shown])),
        labels=torch.from_numpy(clips.labels[rows]),
        captions=None if encode is None else encode([clips.captions[row] for row in rows]),
    )


def _in_order(clips: Clips, pixels: Pixels, *, batch_size: int = 64) -> Iterator[Batch]:
    """Every clip once, with the middle frames of its segments."""
    step = clips.frames.shape[1] // FRAMES
    for first in range(0, len(clips.labels), batch_size):
        rows = slice(first, first + batch_size)
        yield Batch(
            frames=pixels(torch.from_numpy(clips.frames[rows, step // 2 :: step])),
            labels=torch.from_numpy(clips.labels[rows]),
        )


class _Student:
    """FitCLIP's choice: the weights with the lowest labelled loss on other videos."""

    def __init__(self, step: Step, world: World, pixels: Pixels, encode: Encode) -> None:
        self.best = step.weights.vector.detach().clone()
        self._step, self._lowest = step, math.inf
        frames, captions = world.validation
        size = min(step.optimisation.batch_size, len(frames))
        # Negatives are the batch's other clips: only whole batches compare.
        self._batches = [
            (frames[first : first + size], list(captions[first : first + size]))
            for first in range(0, len(frames) - size + 1, size)
        ]
        self._pixels, self._encode = pixels, encode

    def look(self, steps_done: int) -> None:
        """Measure, where it is time."""
        step = self._step
        if steps_done % _VALIDATE_EVERY and steps_done != step.steps:
            return
        losses = []
        for frames, captions in self._batches:
            batch = Batch(
                frames=self._pixels(torch.from_numpy(frames)), captions=self._encode(captions)
            )
            with torch.no_grad(), autocast(step.device, step.optimisation.precision):
                losses.append(float(step.recipe.validation_loss(batch)))
        loss = float(np.mean(losses))
        if loss < self._lowest:
            self._lowest = loss
            self.best.copy_(step.weights.vector.detach())
