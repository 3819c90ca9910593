"""Which weights on the way are the best: those with the lowest loss on other videos."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from training import distributed
from training.config import ConfigError
from training.data.batches import batches
from training.data.dataset import FailedVideo, VideoSource
from training.feed import Feed
from training.precision import autocast
from training.step import Step


class Validation:
    """Looks at the same batches every time, and keeps the best weights.

    best_loss: the lowest so far. best: the weights it was measured with, a flat vector like
    `step.weights.vector`; None before the first look.
    """

    def __init__(
        self,
        step: Step,
        source: VideoSource,
        feed: Feed,
        *,
        every: int,
        workers: int,
        on_failure: Callable[[FailedVideo], None],
    ) -> None:
        """on_failure: called with each video that could not be decoded, at every look.

        Raises ConfigError when there are fewer videos than processes.
        """
        world = distributed.world_size()
        self.best_loss = math.inf
        self.best: Tensor | None = None
        self._step, self._source, self._feed = step, source, feed
        self._every, self._workers, self._on_failure = every, workers, on_failure
        largest = min(step.optimisation.batch_size, len(source))
        self._batch_size = largest - largest % world
        if not self._batch_size:
            raise ConfigError(f"validation.videos: {len(source)} videos for {world} processes")

    def due(self, steps_done: int) -> bool:
        """Whether to look after so many steps; always after the last."""
        return steps_done % self._every == 0 or steps_done == self._step.steps

    def look(self) -> float:
        """The mean loss over all whole batches and all ranks, at the weights as they are."""
        step = self._step
        losses = []
        for raw in batches(
            self._source,
            batch_size=self._batch_size,
            seed=step.seed,
            stop_step=len(self._source) // self._batch_size,
            rank=distributed.rank(),
            world=distributed.world_size(),
            workers=self._workers,
        ):
            for failed in raw.failed:
                self._on_failure(failed)
            with torch.no_grad(), autocast(step.device, step.optimisation.precision):
                losses.append(step.recipe.validation_loss(self._feed(raw)).float())
        loss = float(distributed.average(torch.stack(losses).mean()))
        if loss < self.best_loss:
            self.best_loss = loss
            if self.best is None:
                self.best = torch.empty_like(step.weights.vector)
            self.best.copy_(step.weights.vector.detach())
        return loss
