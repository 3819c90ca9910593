"""How much work is let in: bounded lanes, and an honest guess of when to come back."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.errors import ApiError
from service.metrics import Metrics

_SMOOTHING = 0.1  # weight of the newest duration in the running mean
_SPREAD = 0.2  # Retry-After is spread by this share, so that clients do not come back together


class Admission:
    """Counts what is in flight per lane and refuses what is beyond its limit.

    Args:
        limits: lane name -> number of requests that may be in flight, waiting or worked on.
        workers: lane name -> how many of them are worked on at the same time.
        metrics: where refusals and flights are counted.
    """

    def __init__(
        self, limits: Mapping[str, int], *, workers: Mapping[str, int], metrics: Metrics
    ) -> None:
        self._limits = dict(limits)
        self._workers = dict(workers)
        self._in_flight = dict.fromkeys(limits, 0)
        self._mean_seconds = dict.fromkeys(limits, 1.0)
        self._metrics = metrics
        self._draining = False

    def drain(self) -> None:
        """Let nothing more in; what is in flight goes on."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether the service is stopping."""
        return self._draining

    def in_flight(self, lane: str) -> int:
        """Requests of this lane that are in."""
        return self._in_flight[lane]

    def check(self, lane: str) -> None:
        """Raise what `enter` would raise now."""
        if self._draining:
            self._metrics.rejected.labels("draining").inc()
            raise ApiError("draining", "The service is stopping.", retry_after_seconds=5)
        if self._in_flight[lane] >= self._limits[lane]:
            self._metrics.rejected.labels("queue_full").inc()
            raise ApiError(
                "saturated",
                f"{self._limits[lane]} requests are in flight already.",
                limit=self._limits[lane],
                retry_after_seconds=self.retry_after_seconds(lane),
            )

    @contextmanager
    def enter(self, lane: str) -> Iterator[None]:
        """Hold one place in a lane.

        Raises:
            ApiError: ``draining`` or ``saturated``, both 503 with ``Retry-After``.
        """
        self.check(lane)
        self._in_flight[lane] += 1
        self._metrics.in_flight.labels(lane).set(self._in_flight[lane])
        start = time.monotonic()
        try:
            yield
        finally:
            self._in_flight[lane] -= 1
            self._metrics.in_flight.labels(lane).set(self._in_flight[lane])
            taken = time.monotonic() - start
            self._mean_seconds[lane] += _SMOOTHING * (taken - self._mean_seconds[lane])

    def retry_after_seconds(self, lane: str) -> int:
        """Guess when a place is free: time in the lane times the queue ahead per worker."""
        ahead = self._in_flight[lane] / max(1, self._workers[lane])
        # The mean holds the wait of a full lane already: divide it out for the time of work.
        work = self._mean_seconds[lane] / max(1.0, ahead)
        wait = work * max(1.0, ahead / 2) * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - jitter
        return min(60, max(1, math.ceil(wait)))
