"""What waits for the encoder: the clips or texts of one request, and batches of such."""

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.frames import Slot
from service.tracing import Place, asked, here, past

Kind = Literal["clips", "texts"]
Reason = Literal["idle", "drained", "full", "deadline", "retry"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
NO_DEADLINE: Final = math.inf


@dataclass(frozen=True)
class QueueKey:
    """One queue of the batcher: what may share a batch.

    Attributes:
        kind: clips or texts.
        clip_weight: λ of the weights that they need; None: texts, where λ does not matter.
    """

    kind: Kind
    clip_weight: float | None

    def can_run(self, there: Collection[float] | None) -> bool:
        """Whether a worker with the weights at these λ can run it; None: at all."""
        return there is None or self.clip_weight is None or self.clip_weight in there


@dataclass(eq=False)
class Work:
    """The clips or the texts of one request.

    Attributes:
        key: its queue.
        size: clips, or rows of tokens.
        content: where the pixels are, or the tokens int64 (n, L).
        deadline: `time.monotonic()` at which it is worthless.
        arrived: `time.monotonic()` at which it came.
        future: gets the vectors float32 (size, ...); cancelled by a client that leaves.
        taken: units that were given to the device so far.
        failures: how often it failed alone.
        deaths: how often the worker died with it.
        forgotten: whether its queue counts it no more.
        place: of the trace that it is done for, if any.
    """

    key: QueueKey
    size: int
    content: Slot | npt.NDArray[np.int64]
    deadline: float
    arrived: float
    future: asyncio.Future[npt.NDArray[np.float32]]
    taken: int = 0
    failures: int = 0
    deaths: int = 0
    forgotten: bool = False
    place: Place | None = field(default_factory=here, repr=False)
    _vectors: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    _filled: int = 0

    @property
    def left(self) -> bool:
        """Whether nobody waits for it: answered, failed, or its client left."""
        return self.future.done()

    @property
    def width(self) -> int:
        """Units of cost of a row: tokens of a text, 1 for a clip."""
        return 1 if isinstance(self.content, Slot) else max(1, self.content.shape[1])

    def fill(self, first: int, vectors: npt.NDArray[np.float32]) -> None:
        """Take the vectors of the units from `first` on; the last ones complete it."""
        if self.left:
            return
        if len(vectors) == self.size:
            self.future.set_result(vectors)
            return
        if self._vectors is None:
            self._vectors = np.empty((self.size, *vectors.shape[1:]), np.float32)
        self._vectors[first : first + len(vectors)] = vectors
        self._filled += len(vectors)
        if self._filled == self.size:
            self.future.set_result(self._vectors)

    def fail(self, error: Exception) -> None:
        """Let whoever waits see `error`."""
        if not self.left:
            self.future.set_exception(error)


@dataclass(frozen=True)
class Part:
    """The units [first, last) of one work."""

    work: Work
    first: int
    last: int

    @property
    def size(self) -> int:
        """Clips or rows."""
        return self.last - self.first


@dataclass(frozen=True, eq=False)
class Batch:
    """Parts of the works of one queue, run together.

    Attributes:
        key: the queue.
        parts: in order.
        reason: why it is no larger: everything that had gathered (`idle`: the device waited for
            it, `drained`: it did not), the size that the cost model chose, a deadline, a retry.
        predicted_seconds: by the cost model.
    """

    key: QueueKey
    parts: tuple[Part, ...]
    reason: Reason
    predicted_seconds: float = 0.0

    @property
    def size(self) -> int:
        """Clips or rows."""
        return sum(part.size for part in self.parts)

    @property
    def units(self) -> int:
        """Units of cost: clips, or tokens."""
        return self.size * self.parts[0].work.width

    @property
    def works(self) -> tuple[Work, ...]:
        """The works that it holds parts of."""
        return tuple(dict.fromkeys(part.work for part in self.parts))

    def message(self) -> tuple[Header, bytes]:
        """Return the call of a worker: where clips are, or the tokens themselves."""
        header: Header = {"op": self.key.kind, "clip_weight": self.key.clip_weight, **asked()}
        if self.key.kind == "clips":
            header["parts"] = [
                [part.work.content.offset, list(part.work.content.shape), part.first, part.last]
                for part in self.parts
                if isinstance(part.work.content, Slot)
            ]
            return header, b""
        rows = [
            part.work.content[part.first : part.last]
            for part in self.parts
            if isinstance(part.work.content, np.ndarray)
        ]
        ids = rows[0] if len(rows) == 1 else np.concatenate(rows)
        header["shape"] = list(ids.shape)
        return header, np.ascontiguousarray(ids, np.int64).tobytes()

    def trace(self, answer: Header, *, began: float) -> None:
        """Add the batch, sent at ``began`` and answered now, to the trace of each work in it."""
        about = {"vtag.kind": self.key.kind, "vtag.batch.size": self.size}
        times = (began, time.monotonic())
        for work in self.works:
            place = past("encode batch", times, since=began, at=work.place, attributes=about)
            past("encoder process", answer.get("worked"), since=began, at=place)


def after_failure(batch: Batch) -> tuple[list[Sequence[Part]], list[Work]]:
    """Return what to run again after `batch` failed as a whole, and which works have failed.

    It is halved until the work that fails is alone; that one gets one more try.
    """
    works = batch.works
    if len(works) > 1:
        first = set(works[: len(works) // 2])
        halves = (
            [part for part in batch.parts if part.work in first],
            [part for part in batch.parts if part.work not in first],
        )
        return list(halves), []
    return after_bad_output(batch.parts)


def after_bad_output(parts: Iterable[Part]) -> tuple[list[Sequence[Part]], list[Work]]:
    """The same for parts that are known to be bad: each is tried once more, alone."""
    again: list[Sequence[Part]] = []
    failed: list[Work] = []
    parts = tuple(parts)
    for work in dict.fromkeys(part.work for part in parts):
        work.failures += 1
        if work.failures > 1:
            failed.append(work)
        else:
            again.append([part for part in parts if part.work is work])
    return again, failed


def after_death(batch: Batch) -> tuple[list[Sequence[Part]], list[Work]]:
    """The same when the worker died: each work alone and once more, so the one that kills shows."""
    again: list[Sequence[Part]] = []
    failed: list[Work] = []
    for work in batch.works:
        work.deaths += 1
        if work.deaths > 1:
            failed.append(work)
        else:
            again.append([part for part in batch.parts if part.work is work])
    return again, failed


def after_memory(batch: Batch, *, cap: int) -> tuple[list[Sequence[Part]], list[Work]]:
    """The same when the memory of the device ran out: pieces of at most `cap` units of cost.

    A batch of one row cannot be cut; it gets one more try.
    """
    if batch.size == 1:
        return after_bad_output(batch.parts)
    rows = max(1, min(cap // batch.parts[0].work.width, batch.size // 2))
    again: list[Sequence[Part]] = []
    piece: list[Part] = []
    for part in batch.parts:
        first = part.first
        while first < part.last:
            room = rows - sum(other.size for other in piece)
            last = min(part.last, first + room)
            piece.append(Part(part.work, first, last))
            first = last
            if sum(other.size for other in piece) == rows:
                again.append(piece)
                piece = []
    if piece:
        again.append(piece)
    return again, []
