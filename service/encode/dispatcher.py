"""The loops that give batches to the devices: one at a time each, whatever becomes of them."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.child import Child, ChildDiedError
from service.deadline import reached
from service.encode.batcher import Batcher
from service.encode.residents import Residents, StaleWeightsError
from service.encode.station import Station
from service.encode.supervision import (
    EncoderError,
    EncoderMemoryError,
    EncoderUnavailableError,
)
from service.encode.work import (
    Batch,
    Part,
    QueueKey,
    Reason,
    Work,
    after_bad_output,
    after_death,
    after_failure,
    after_memory,
)
from service.frames import Slot
from service.videoclip.manifest import ArtefactError

_log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 30.0
"""Weights that could not be built in a worker, and that another one has, are left to that one."""

_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class BatchRecord:
    """What became of one batch, for whoever counts.

    Attributes:
        kind: `clips` or `texts`.
        size: clips or rows in it.
        fill: its size over the largest that was allowed.
        reason: why it was no larger.
        seconds: from sending to the answer.
        queue_seconds: how long the oldest work in it had waited.
        outcome: `ok`, or why it, or a part of it, is run again or given up: `failure`,
            `bad_output`, `memory`, `death`.
    """

    kind: str
    size: int
    fill: float
    reason: Reason
    seconds: float
    queue_seconds: float
    outcome: str


class BadOutputError(EncoderError):
    """An embedding was zero or not finite, twice."""


class Dispatcher:
    """Has idle devices take batches from the one batcher, and answers who waits.

    A device whose worker is down takes nothing: what waits is for the others, or waits on.

    Args:
        stations: the devices.
        batcher: says what is next.
        residents: has weights built again that a worker lost.
        timeout_seconds: a worker that does not answer a batch for so long is killed.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        *,
        batcher: Batcher,
        residents: Residents,
        timeout_seconds: float,
    ) -> None:
        self._stations = stations
        self._batcher = batcher
        self._residents = residents
        self._timeout_seconds = timeout_seconds
        self._rebuilding: dict[float, asyncio.Task[None]] = {}
        self._not_before: dict[float, float] = {}
        self.observe: Callable[[BatchRecord], None] | None = None
        """Told of each batch that ended."""

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until work that came now would begin."""
        working = sum(station.state == "ok" for station in self._stations)
        return self._batcher.backlog_seconds(time.monotonic(), devices=max(1, working))

    def start(self) -> None:
        """Begin."""
        for number, station in enumerate(self._stations):
            name = f"encoder-dispatcher-{number}"
            station.loop = asyncio.create_task(self._run(station), name=name)

    async def stop(self, error: Exception) -> None:
        """End; whoever still waits gets `error`."""
        loops = [station.loop for station in self._stations if station.loop is not None]
        tasks = [*loops, *self._rebuilding.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for station in self._stations:
            station.loop = None
        self._fail_all(error)

    async def encode(
        self, key: QueueKey, content: Slot | npt.NDArray[np.int64], *, deadline: float
    ) -> npt.NDArray[np.float32]:
        """Return the vectors of `content` (clips of a slot, or tokens int64 (n, L)).

        Raises:
            EncoderError: workers failed twice on it, or are stopped.
        """
        if all(station.loop is None for station in self._stations):
            raise EncoderUnavailableError("the encoder is stopped")
        size = content.shape[0]
        future = asyncio.get_running_loop().create_future()
        work = Work(key, size, content, deadline, time.monotonic(), future)
        self._batcher.add(work)
        self._wake()
        try:
            return await work.future
        except asyncio.CancelledError:
            if key.kind == "clips":  # texts are encoded beside
                reached("encode" if work.taken else "batch")
            raise
        finally:
            # Answered, failed, or cancelled: then it is dropped here, before the next batch.
            self._batcher.forget(work)

    def _wake(self) -> None:
        """There may be work for devices that have none: who is first takes it."""
        for station in self._stations:
            station.woken.set()

    def _fail_all(self, error: Exception) -> None:
        for work in self._batcher.everything():
            work.fail(error)

    async def _run(self, station: Station) -> None:
        idle = False
        while True:
            station.woken.clear()
            child = await self._child(station)
            if child is None:
                continue
            batch = None
            if self._batcher.waiting:
                async with station.turns.request():
                    if not child.alive:
                        continue
                    # Taken only now: what gathered, or left, while this waited for its turn counts.
                    there = station.worker.scales.keys()
                    batch = self._batcher.take(time.monotonic(), idle=idle, there=there)
                    if batch is not None:
                        await self._try(station, child, batch)
                self._rebuild_missing(station)
            idle = batch is None
            if idle:
                await station.woken.wait()

    async def _child(self, station: Station) -> Child | None:
        """The child of a station, waiting for one; what waits fails if there is none anywhere."""
        try:
            return await station.worker.child()
        except EncoderUnavailableError as error:
            if not any(other.worker.ready for other in self._stations):
                self._fail_all(error)
            await asyncio.sleep(_PAUSE_SECONDS)
            return None

    async def _try(self, station: Station, child: Child, batch: Batch) -> None:
        """Run one batch. Whatever happens to it, the loop goes on."""
        waited = time.monotonic() - min(part.work.arrived for part in batch.parts)
        fill = batch.units / self._batcher.caps[batch.key.kind].value
        began = time.monotonic()
        outcome = "failure"
        station.begin(batch)
        try:
            outcome = await self._send(station, child, batch)
        except asyncio.CancelledError:
            self._batcher.again(batch.parts)  # who stops the loop answers them
            raise
        except ChildDiedError:
            outcome = "death"
            self._settle(after_death(batch), EncoderError("the encoder died twice on one call"))
        except EncoderMemoryError as error:
            outcome = "memory"
            cap = self._batcher.ran_out_of_memory(batch)
            _log.warning("the device has no memory for %d %s at once", batch.size, batch.key.kind)
            self._settle(after_memory(batch, cap=cap), error)
        except Exception as error:  # noqa: BLE001 - told to whoever waits; the loop must live
            if not isinstance(error, EncoderError | ArtefactError):
                _log.exception("a batch of %d %s failed", batch.size, batch.key.kind)
            self._settle(after_failure(batch), error)
        finally:
            station.end()
            self._batcher.ended(batch)
        if self.observe is not None:
            kind, reason, seconds = batch.key.kind, batch.reason, time.monotonic() - began
            self.observe(BatchRecord(kind, batch.size, fill, reason, seconds, waited, outcome))

    async def _send(self, station: Station, child: Child, batch: Batch) -> str:
        weight = batch.key.clip_weight
        header, payload = batch.message()
        began = time.monotonic()
        answer, output = await station.worker.ask(
            child, header, payload=payload, timeout=self._timeout_seconds
        )
        seconds = time.monotonic() - began
        batch.trace(answer, began=began)
        if answer.get("gone"):
            raise EncoderError(f"the encoder has no weights at {weight}")
        if weight is not None and answer["clip_weight"] != weight:
            raise EncoderError(f"asked for {weight:g}, got {answer['clip_weight']}")
        self._batcher.finished(batch, seconds=seconds)
        vectors = np.frombuffer(output, np.float32).reshape(answer["shape"])
        return self._deliver(batch, vectors, bad=frozenset(answer["bad"]))

    def _deliver(
        self, batch: Batch, vectors: npt.NDArray[np.float32], *, bad: frozenset[int]
    ) -> str:
        spoilt: list[Part] = []
        row = 0
        for part in batch.parts:
            rows = range(row, row + part.size)
            row = rows.stop
            if bad and not bad.isdisjoint(rows):
                spoilt.append(part)
            else:
                part.work.fill(part.first, vectors[rows.start : rows.stop])
        if not spoilt:
            return "ok"
        _log.error("%d of %d embeddings are zero or not finite", len(bad), batch.size)
        error = BadOutputError("an embedding is zero or not finite")
        self._settle(after_bad_output(spoilt), error)
        return "bad_output"

    def _settle(
        self, found: tuple[Sequence[Sequence[Part]], Sequence[Work]], error: Exception
    ) -> None:
        again, failed = found
        for work in failed:
            work.fail(error)
        for parts in again:
            self._batcher.again(parts)
        self._wake()

    def _rebuild_missing(self, station: Station) -> None:
        """Have weights built that something waits for and this worker, which came back, lacks."""
        for clip_weight in self._batcher.clip_weights - station.worker.scales.keys():
            soon = time.monotonic() < self._not_before.get(clip_weight, 0.0)
            if clip_weight in self._rebuilding or (soon and self._somewhere(clip_weight)):
                continue
            task = asyncio.create_task(self._rebuild(clip_weight))
            self._rebuilding[clip_weight] = task

    def _somewhere(self, clip_weight: float) -> bool:
        workers = (station.worker for station in self._stations)
        return any(worker.ready and clip_weight in worker.scales for worker in workers)

    async def _rebuild(self, clip_weight: float) -> None:
        try:
            await self._residents.rebuild(clip_weight)
        except Exception as error:  # noqa: BLE001 - told to everyone who waits for it
            _log.error("the weights at %g cannot be built again: %s", clip_weight, error)
            self._not_before[clip_weight] = time.monotonic() + _AGAIN_SECONDS
            if not self._somewhere(clip_weight):
                self._residents.lost(clip_weight)
                lost = StaleWeightsError(f"clip_weight {clip_weight:g} is lost: {error}")
                for work in self._batcher.everything():
                    if work.key.clip_weight == clip_weight:
                        work.fail(lost)
        finally:
            del self._rebuilding[clip_weight]
            self._wake()
