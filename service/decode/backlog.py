"""What waits and what is worked on, and how long that will take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from service.decode.cost import Prediction


@dataclass
class Job:
    """A call that waits or is worked on.

    Attributes:
        prediction: what it will take; may get better while it waits.
        came: `time.monotonic()`.
        began: the same; None: it waits.
    """

    prediction: Prediction
    came: float = field(default_factory=time.monotonic)
    began: float | None = None


class Backlog:
    """The calls of a pool of `workers`, in the order in which they came."""

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._jobs: dict[int, Job] = {}
        self._last = 0
        self.calls = 0
        """Calls that were worked on and are over."""
        self.busy_seconds = 0.0
        """How long they were worked on."""
        self.wait_seconds = 0.0
        """How long they had waited."""

    @property
    def waiting(self) -> int:
        """Calls that wait for a worker."""
        return sum(job.began is None for job in self._jobs.values())

    @property
    def seconds(self) -> float:
        """Predicted seconds until a call that comes now begins; 0: a worker is idle."""
        now = time.monotonic()
        jobs = self._jobs.values()
        running = [
            remaining(job.prediction, elapsed_seconds=now - job.began)
            for job in jobs
            if job.began is not None
        ]
        waiting = [job.prediction.seconds for job in jobs if job.began is None]
        return start_delay(running, waiting, workers=max(self._workers, len(running)))

    @contextmanager
    def job(self, prediction: Prediction) -> Iterator[Job]:
        """Count a call until it ends."""
        self._last += 1
        number = self._last
        job = self._jobs[number] = Job(prediction)
        try:
            yield job
        finally:
            del self._jobs[number]
            if job.began is not None:
                self.calls += 1
                self.wait_seconds += job.began - job.came
                self.busy_seconds += time.monotonic() - job.began


def start_delay(running: Sequence[float], waiting: Sequence[float], *, workers: int) -> float:
    """Seconds until a video that is sent now begins to decode.

    Args:
        running: remaining seconds of the videos that are decoded now, at most `workers` of them.
        waiting: seconds of those that wait, in order; each goes to the worker that is free first.
        workers: number of workers.

    Raises:
        ValueError: more run than there are workers, or there is none.
    """
    if workers < 1 or len(running) > workers:
        raise ValueError(f"{len(running)} videos run on {workers} workers")
    free_at = np.zeros(workers)
    free_at[: len(running)] = running
    for seconds in waiting:
        free_at[np.argmin(free_at)] += seconds
    return float(free_at.min())


def remaining(prediction: Prediction, *, elapsed_seconds: float) -> float:
    """Seconds that a running call will still take.

    One that runs longer than predicted is expected to need half of what it has had so far: the
    longer a call runs, the longer it was.
    """
    return max(prediction.seconds - elapsed_seconds, 0.5 * (elapsed_seconds - prediction.seconds))
