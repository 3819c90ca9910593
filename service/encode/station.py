"""One device at work: its worker process, whose turn it is there, and what it is busy with."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

from service.channel import Header
from service.encode.canary import Canary
from service.encode.supervision import EncoderWorker, WorkerSetup
from service.encode.turns import Turns
from service.encode.work import Batch

_STUCK_SECONDS: Final = 5.0
_STUCK_FACTOR: Final = 4.0
"""A batch that takes so many times what was predicted, and so long, does not progress."""

State = Literal["ok", "stuck", "down"]


class Station:
    """What the dispatcher knows of one device, and what operators see of it.

    Args:
        worker: its process.
        timeout_seconds: a worker that does not answer a call for so long is killed.
    """

    def __init__(self, worker: EncoderWorker, *, timeout_seconds: float) -> None:
        self.worker = worker
        self.turns = Turns()
        """Who calls the worker next."""
        self.woken = asyncio.Event()
        """Set when there may be work for it."""
        self.loop: asyncio.Task[None] | None = None
        """Gives it batches."""
        self._canary = Canary(worker, turns=self.turns, timeout_seconds=timeout_seconds)
        self.busy_seconds = 0.0
        """How long batches ran on it."""
        self._sent_at: float | None = None
        self._sent_seconds = 0.0

    @property
    def state(self) -> State:
        """``ok``; ``stuck``: its process runs and does not get on; or ``down``."""
        if not self.worker.ready:
            return "down"
        return "ok" if self._progressing and self._canary.alive else "stuck"

    @property
    def busy(self) -> bool:
        """Whether a batch runs on it."""
        return self._sent_at is not None

    @property
    def silent_seconds(self) -> float:
        """How long ago the worker last answered anything."""
        return time.monotonic() - self.worker.answered_at

    def start(self) -> None:
        """Begin to ask a worker that is silent."""
        self._canary.start()

    async def stop(self) -> None:
        """No more of that; safe to call twice."""
        await self._canary.stop()

    def begin(self, batch: Batch) -> None:
        """A batch is sent."""
        self._sent_at, self._sent_seconds = time.monotonic(), batch.predicted_seconds

    def end(self) -> None:
        """It is over."""
        if self._sent_at is not None:
            self.busy_seconds += time.monotonic() - self._sent_at
        self._sent_at = None

    @property
    def _progressing(self) -> bool:
        """Whether the loop runs and the batch in flight, if any, is not stuck."""
        if self.loop is None or self.loop.done():
            return False
        if self._sent_at is None:
            return True
        allowed = max(_STUCK_SECONDS, _STUCK_FACTOR * self._sent_seconds)
        return time.monotonic() - self._sent_at < allowed


def stations_on(
    devices: Sequence[str],
    *,
    setup: WorkerSetup,
    clip_weight: Callable[[], float],
    configured: Callable[[Header], None],
    timeout_seconds: float,
) -> tuple[Station, ...]:
    """Return a station for each device, named by its number where there are several.

    Args:
        devices: `cpu`, `cuda` or `cuda:N`, each.
        setup: what all workers are told, but the device.
        clip_weight: as `EncoderWorker`.
        configured: as there.
        timeout_seconds: as `Station`.
    """
    made = []
    for number, device in enumerate(devices):
        name = setup.name if len(devices) == 1 else f"{setup.name} {number}"
        worker = EncoderWorker(
            replace(setup, device=device, name=name),
            clip_weight=clip_weight,
            configured=configured,
        )
        made.append(Station(worker, timeout_seconds=timeout_seconds))
    return tuple(made)


def state_of(stations: Sequence[Station]) -> Literal["ok", "degraded", "stuck", "down"]:
    """Return how they do together: ``degraded`` as long as one works and another does not."""
    states = {station.state for station in stations}
    if "ok" in states:
        return "ok" if len(states) == 1 else "degraded"
    return "stuck" if "stuck" in states else "down"
