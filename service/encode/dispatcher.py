"""The loop that gives batches to the worker: one at a time, whatever becomes of them."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.child import ChildDiedError
from service.deadline import reached
from service.encode.batcher import Batcher
from service.encode.residents import Residents, StaleWeightsError
from service.encode.supervision import (
    EncoderError,
    EncoderMemoryError,
    EncoderUnavailableError,
    EncoderWorker,
)
from service.encode.turns import Turns
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

_STUCK_SECONDS: Final = 5.0
_STUCK_FACTOR: Final = 4.0
"""A batch that takes so many times what was predicted, and so long, does not progress."""


@dataclass(frozen=True)
class BatchRecord:
    """What became of one batch, for whoever counts.

    Attributes:
        kind: `clips` or `texts`.
        size: clips or rows in it.
        reason: why it was no larger.
        seconds: from sending to the answer.
        queue_seconds: how long the oldest work in it had waited.
        outcome: `ok`, or why it, or a part of it, is run again or given up: `failure`,
            `bad_output`, `memory`, `death`, `gone` (its weights).
    """

    kind: str
    size: int
    reason: Reason
    seconds: float
    queue_seconds: float
    outcome: str


class BadOutputError(EncoderError):
    """An embedding was zero or not finite, twice."""


class Dispatcher:
    """Takes batches from the batcher, has the worker run them, and answers who waits.

    Args:
        worker: runs them.
        batcher: says which.
        residents: which weights are there.
        turns: lets work in the background pass.
        timeout_seconds: a worker that does not answer a batch for so long is killed.
    """

    def __init__(
        self,
        worker: EncoderWorker,
        *,
        batcher: Batcher,
        residents: Residents,
        turns: Turns,
        timeout_seconds: float,
    ) -> None:
        self._worker = worker
        self._batcher = batcher
        self._residents = residents
        self._turns = turns
        self._timeout_seconds = timeout_seconds
        self._arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._rebuilding: set[asyncio.Task[None]] = set()
        self._sent_at: float | None = None
        self._sent_seconds = 0.0
        self.observe: Callable[[BatchRecord], None] | None = None
        """Told of each batch that ended."""

    @property
    def progressing(self) -> bool:
        """Whether the loop runs and the batch in flight, if any, is not stuck."""
        if self._loop is None or self._loop.done():
            return False
        if self._sent_at is None:
            return True
        allowed = max(_STUCK_SECONDS, _STUCK_FACTOR * self._sent_seconds)
        return time.monotonic() - self._sent_at < allowed

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until work that came now would begin."""
        running = 0.0 if self._sent_at is None else time.monotonic() - self._sent_at
        return self._batcher.backlog_seconds(running_seconds=running)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name="encoder-dispatcher")

    async def stop(self, error: Exception) -> None:
        """End; whoever still waits gets `error`."""
        tasks = [task for task in (self._loop, *self._rebuilding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        for work in self._batcher.everything():
            work.fail(error)

    async def encode(
        self, key: QueueKey, content: Slot | npt.NDArray[np.int64], *, deadline: float
    ) -> npt.NDArray[np.float32]:
        """Return the vectors of `content` (clips of a slot, or tokens int64 (n, L)).

        Raises:
            EncoderError: the worker failed twice on it, or is stopped.
        """
        if self._loop is None:
            raise EncoderUnavailableError("the encoder is stopped")
        size = content.shape[0]
        future = asyncio.get_running_loop().create_future()
        work = Work(key, size, content, deadline, time.monotonic(), future)
        self._batcher.add(work)
        self._arrived.set()
        try:
            return await work.future
        except asyncio.CancelledError:
            if key.kind == "clips":  # texts are encoded beside
                reached("encode" if work.taken else "batch")
            raise
        finally:
            # Answered, failed, or cancelled: then it is dropped here, before the next batch.
            self._batcher.forget(work)

    async def _run(self) -> None:
        idle = False
        while True:
            self._arrived.clear()
            if not self._batcher.waiting:
                idle = True
                await self._arrived.wait()
            async with self._turns.request():
                # Taken only now: what gathered, or left, while this waited for its turn counts.
                batch = self._batcher.take(time.monotonic(), idle=idle)
                if batch is not None:
                    await self._try(batch)
            if batch is None and self._batcher.waiting:  # for weights that are being built
                await self._arrived.wait()
            idle = False

    async def _try(self, batch: Batch) -> None:
        """Run one batch. Whatever happens to it, the loop goes on."""
        waited = time.monotonic() - min(part.work.arrived for part in batch.parts)
        began = time.monotonic()
        outcome = "failure"
        try:
            self._sent_at, self._sent_seconds = began, batch.predicted_seconds
            outcome = await self._send(batch)
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
            self._sent_at = None
            self._batcher.idle()
        if self.observe is not None:
            seconds = time.monotonic() - began
            self.observe(
                BatchRecord(batch.key.kind, batch.size, batch.reason, seconds, waited, outcome)
            )

    async def _send(self, batch: Batch) -> str:
        child = await self._worker.child()
        weight = batch.key.clip_weight
        if weight is not None and self._residents.logit_scale(weight) is None:
            self._rebuild(batch, weight)
            return "gone"
        header, payload = _message(batch)
        self._sent_at = began = time.monotonic()
        answer, output = await self._worker.ask(
            child, header, payload=payload, timeout=self._timeout_seconds
        )
        seconds = time.monotonic() - began
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
        self._arrived.set()

    def _rebuild(self, batch: Batch, clip_weight: float) -> None:
        """A worker that died took these weights along: build them again, then run the batch."""
        self._batcher.block(clip_weight)
        self._batcher.again(batch.parts)
        task = asyncio.create_task(self._build(clip_weight))
        self._rebuilding.add(task)
        task.add_done_callback(self._rebuilding.discard)

    async def _build(self, clip_weight: float) -> None:
        try:
            await self._residents.rebuild(clip_weight)
        except Exception as error:  # noqa: BLE001 - told to everyone who waits for it
            _log.error("the weights at %g cannot be built again: %s", clip_weight, error)
            lost = StaleWeightsError(f"clip_weight {clip_weight:g} is lost: {error}")
            for work in self._batcher.everything():
                if work.key.clip_weight == clip_weight:
                    work.fail(lost)
        finally:
            self._batcher.unblock(clip_weight)
            self._arrived.set()


def _message(batch: Batch) -> tuple[Header, bytes]:
    """Return the call of the worker: where clips are, or the tokens themselves."""
    header: Header = {"op": batch.key.kind, "clip_weight": batch.key.clip_weight}
    if batch.key.kind == "clips":
        header["parts"] = [
            [part.work.content.offset, list(part.work.content.shape), part.first, part.last]
            for part in batch.parts
            if isinstance(part.work.content, Slot)
        ]
        return header, b""
    rows = [
        part.work.content[part.first : part.last]
        for part in batch.parts
        if isinstance(part.work.content, np.ndarray)
    ]
    ids = rows[0] if len(rows) == 1 else np.concatenate(rows)
    header["shape"] = list(ids.shape)
    return header, np.ascontiguousarray(ids, np.int64).tobytes()
