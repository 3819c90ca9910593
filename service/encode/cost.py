"""What a batch costs: seconds = a·n + b, fitted to the recent batches; and how large one should be.

BentoML fits the same line to choose how long to wait. Here nobody waits: the line says how many of
those that wait anyway go together. Where b is nothing, as on a CPU that one clip fills, that is
one; where b is large, as on a GPU, it is many.
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np

_SAMPLES_PER_SIZE: Final = 8
_TOLERANCE: Final = 0.05
"""A batch may cost so much more for each unit than the largest would: small ones answer sooner."""

_EXPLORE_EVERY: Final = 200


class CostModel:
    """Cost of batches of one kind of work; the unit is a clip, or a token of a text.

    Args:
        buckets: sizes that batches are padded to, ascending; none: any size runs as it is.
    """

    def __init__(self, *, buckets: Sequence[int] = ()) -> None:
        self._buckets = tuple(buckets)
        self._samples: dict[int, deque[tuple[int, float]]] = {}
        self._batches = 0
        self.seconds_per_unit = 0.0
        """a of the fitted line."""
        self.seconds_per_batch = 0.0
        """b of the fitted line, never below 0."""

    def add(self, size: int, seconds: float) -> None:
        """Learn from a batch of `size` units that took `seconds`."""
        size = self.padded(size)
        group = self._samples.setdefault(_group(size), deque(maxlen=_SAMPLES_PER_SIZE))
        group.append((size, seconds))
        self._batches += 1
        self._fit()

    def seconds(self, size: int) -> float:
        """Return the predicted seconds of a batch of `size` units; 0 before the first `add`."""
        return self.seconds_per_unit * self.padded(size) + self.seconds_per_batch

    def padded(self, size: int) -> int:
        """Return the size that a batch of `size` units is run at."""
        return next((bucket for bucket in self._buckets if bucket >= size), size)

    def choose(self, waiting: int, *, cap: int) -> int:
        """Return how many of `waiting` units (>= 1) should go into one batch of at most `cap`.

        The smallest size whose cost for each unit is within 5 % of that of the largest possible.
        Sizes are explored by doubling: when only one was ever measured, and now and then later.
        """
        largest = max(1, min(waiting, cap))
        if largest == 1 or not self._samples:
            return 1
        size = min(self._cheapest(largest), 2 * self._explored)
        if len(self._samples) == 1 or self._batches % _EXPLORE_EVERY == 0:
            size = 2 * max(size, self._explored if len(self._samples) == 1 else 1)
        return self._fitting(min(size, largest))

    @property
    def _explored(self) -> int:
        return max(size for group in self._samples.values() for size, _ in group)

    def _cheapest(self, largest: int) -> int:
        allowed = (1 + _TOLERANCE) * (self.seconds_per_unit + self.seconds_per_batch / largest)
        spare = allowed - self.seconds_per_unit
        if self.seconds_per_batch <= 0 or spare <= 0:
            return 1
        return min(largest, math.ceil(self.seconds_per_batch / spare))

    def _fitting(self, size: int) -> int:
        """Between the bucket below and padding to the one above, take what costs less."""
        below = max((bucket for bucket in self._buckets if bucket <= size), default=size)
        if below == size or not self._buckets:
            return size
        split = self.seconds(below) + self.seconds(size - below)
        return size if self.seconds(size) <= split else below

    def _fit(self) -> None:
        """Least squares of relative errors over the medians of the sizes."""
        points = [
            (median(n for n, _ in group), median(s / n for n, s in group))
            for group in self._samples.values()
        ]
        sizes = np.array([size for size, _ in points])
        seconds = np.array([size * each for size, each in points])
        weights = 1 / np.maximum(seconds, 1e-9)
        base = 0.0
        if len(points) > 1:
            columns = np.stack([sizes, np.ones_like(sizes)], axis=1) * weights[:, None]
            slope, base = np.linalg.lstsq(columns, seconds * weights, rcond=None)[0]
            if slope < 0:
                slope, base = 0.0, float(np.mean(seconds))
        if base <= 0:
            base = 0.0
            slope = float(np.sum(weights**2 * sizes * seconds) / np.sum((weights * sizes) ** 2))
        self.seconds_per_unit, self.seconds_per_batch = float(slope), float(base)


def _group(size: int) -> int:
    """Small sizes are measured each for itself, larger ones in steps of a quarter octave."""
    return size if size <= 8 else 8 + round(4 * math.log2(size / 8))


class SizeCap:
    """The largest batch that may be tried: halved when memory ran out, growing back slowly.

    Args:
        limit: never more than this.
        calm_batches: so many batches at the cap must succeed before it grows by a quarter.
    """

    def __init__(self, limit: int, *, calm_batches: int = 32) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit}: must be at least 1")
        self._limit = limit
        self._calm_batches = calm_batches
        self._successes = 0
        self.value = limit
        """Units of the largest batch now."""

    def ran_out(self, size: int) -> None:
        """A batch of `size` units did not fit into the memory of the device."""
        self.value = min(self.value, max(1, size // 2))
        self._successes = 0

    def fitted(self, size: int) -> None:
        """A batch of `size` units did fit."""
        if self.value == self._limit or size < self.value:
            return
        self._successes += 1
        if self._successes >= self._calm_batches:
            self._successes = 0
            self.value = min(self._limit, self.value + max(1, self.value // 4))
