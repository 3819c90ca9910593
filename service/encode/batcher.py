"""Which work goes to a device next, and how much of it at once. Pure: no clock, no I/O.

Pulled by whichever device is idle, never timed: what waits goes at once, what comes while all are
busy gathers. One queue for each kind of work and each λ, so weights are never mixed; deficit round
robin (Shreedhar and Varghese, SIGCOMM 1995) in predicted seconds between the queues, earliest
deadline first inside one, first come first served among equals; what is too late comes last.
"""

import heapq
import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from service.encode.cost import CostModel, SizeCap
from service.encode.work import Batch, Kind, Part, QueueKey, Reason, Work

CLIPS_PER_BATCH: Final = 64
TOKENS_PER_BATCH: Final = 16_384
BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Sizes of batches of clips where each new size costs a device something: CUDA."""

_QUANTUM_SECONDS: Final = 0.02
_MAX_BATCH_SECONDS: Final = 0.25
"""Of a batch of more than one row: who comes while it runs waits so long at most."""

_LOOKAHEAD: Final = 64
"""Texts in one queue that are looked at for others of the same length."""


class _Queue:
    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.deficit_seconds = 0.0
        self.rows = 0  # of works that have not left, not yet taken
        self.units = 0  # the same in units of cost
        self._heap: list[tuple[bool, float, int, Work]] = []  # those known to be late behind

    def push(self, work: Work, number: int) -> None:
        heapq.heappush(self._heap, (False, work.deadline, number, work))
        self.rows += work.size
        self.units += work.size * work.width

    def first(self, now: float) -> Work | None:
        """The work with the earliest deadline that is not over; else with the earliest of all.

        Those that left are dropped on the way.
        """
        while self._heap:
            late, deadline, number, work = self._heap[0]
            if work.left or work.taken == work.size:
                heapq.heappop(self._heap)
                self.forget(work)
            elif deadline <= now and not late:
                heapq.heapreplace(self._heap, (True, deadline, number, work))
            else:
                return work
        return None

    def take(self, rows: int, *, width: int, now: float) -> tuple[Part, ...]:
        """Take up to `rows` rows of that width, in order."""
        parts: list[Part] = []
        passed: list[tuple[bool, float, int, Work]] = []
        while rows and (work := self.first(now)) is not None and len(passed) < _LOOKAHEAD:
            if work.width != width:
                passed.append(heapq.heappop(self._heap))
                continue
            part = Part(work, work.taken, min(work.size, work.taken + rows))
            work.taken = part.last
            rows -= part.size
            self.rows -= part.size
            self.units -= part.size * width
            parts.append(part)
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return tuple(parts)

    def works(self) -> list[Work]:
        return [work for *_, work in self._heap]

    def forget(self, work: Work) -> None:
        if not work.forgotten:
            work.forgotten = True
            rows = work.size - work.taken
            self.rows -= rows
            self.units -= rows * work.width
            # Where live work never ends, late work would never come to the front to be dropped.
            self._heap = [entry for entry in self._heap if entry[-1] is not work]
            heapq.heapify(self._heap)


class Batcher:
    """All queues of one device, or of several that are alike: what one learned counts for all.

    Args:
        buckets: sizes that batches of clips are padded to; none: they run at any size.
        clips_per_batch: never more clips at once.
        tokens_per_batch: never more tokens at once, but one text.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[int] = (),
        clips_per_batch: int = CLIPS_PER_BATCH,
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self.costs: dict[Kind, CostModel] = {
            "clips": CostModel(buckets=buckets),
            "texts": CostModel(),
        }
        self.caps: dict[Kind, SizeCap] = {
            "clips": SizeCap(clips_per_batch),
            "texts": SizeCap(tokens_per_batch),
        }
        self._queues: dict[QueueKey, _Queue] = {}  # in the order of their turns
        self._retries: deque[Batch] = deque()
        self._running: dict[Batch, float] = {}  # -> when it was taken
        self._number = 0

    def add(self, work: Work) -> None:
        """Let `work` wait for its turn."""
        queue = self._queues.get(work.key)
        if queue is None:
            queue = self._queues[work.key] = _Queue(work.key)
        self._number += 1
        queue.push(work, self._number)

    def forget(self, work: Work) -> None:
        """Nobody waits for `work` any more (its client left, or it failed): do not count it."""
        queue = self._queues.get(work.key)
        if queue is not None:
            queue.forget(work)

    def again(self, parts: Sequence[Part]) -> None:
        """Run parts of a batch that failed once more, before everything that waits."""
        if parts:
            self._retries.append(Batch(parts[0].work.key, tuple(parts), "retry"))

    def everything(self) -> list[Work]:
        """Return all works that wait or are running."""
        found = [work for queue in self._queues.values() for work in queue.works()]
        for batch in (*self._retries, *self._running):
            found += batch.works
        return list(dict.fromkeys(work for work in found if not work.left))

    def take(
        self, now: float, *, idle: bool = False, there: Collection[float] | None = None
    ) -> Batch | None:
        """Return the next batch, or None if nothing can run.

        Args:
            now: `time.monotonic()`.
            idle: the device was waiting for work.
            there: λ whose weights the device has: work at others waits, or is for others; None:
                any.
        """
        batch = self._take_retry(there) or self._take_waiting(now, idle=idle, there=there)
        if batch is not None:
            self._running[batch] = now
        return batch

    def finished(self, batch: Batch, *, seconds: float) -> None:
        """Learn from a batch that succeeded and took `seconds`."""
        self.costs[batch.key.kind].add(batch.units, seconds)
        self.caps[batch.key.kind].fitted(batch.units)
        queue = self._queues.get(batch.key)
        if queue is not None and batch.reason != "retry":
            late = seconds - batch.predicted_seconds
            # One slow moment of the machine is nobody's debt for long.
            queue.deficit_seconds -= min(late, batch.predicted_seconds + _QUANTUM_SECONDS)

    def ran_out_of_memory(self, batch: Batch) -> int:
        """Halve the size of such batches; return the new one in units of cost."""
        cap = self.caps[batch.key.kind]
        cap.ran_out(batch.units)
        return cap.value

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._retries) or any(queue.rows > 0 for queue in self._queues.values())

    def waiting_rows(self, kind: Kind) -> int:
        """Return the clips or texts that wait."""
        queued = sum(queue.rows for key, queue in self._queues.items() if key.kind == kind)
        return queued + sum(batch.size for batch in self._retries if batch.key.kind == kind)

    def oldest_seconds(self, kind: Kind, now: float) -> float:
        """Return how long the oldest work that waits, or a part of it, has waited; 0: none does."""
        queues = (queue for key, queue in self._queues.items() if key.kind == kind)
        works = [work for queue in queues for work in queue.works() if not work.left]
        works += [work for each in self._retries if each.key.kind == kind for work in each.works]
        return max((now - work.arrived for work in works), default=0.0)

    @property
    def clip_weights(self) -> set[float]:
        """λ whose weights something that waits needs."""
        keys = [key for key, queue in self._queues.items() if queue.rows > 0]
        keys += [batch.key for batch in self._retries]
        return {key.clip_weight for key in keys if key.clip_weight is not None}

    def backlog_seconds(self, now: float = 0.0, *, devices: int = 1) -> float:
        """Return the predicted seconds until work that came now would begin.

        Args:
            now: `time.monotonic()`; what runs has run since it was taken.
            devices: how many work.
        """
        total = 0.0
        for key, queue in self._queues.items():
            total += self._predict(key.kind, queue.units)
        for batch in self._retries:
            total += self.costs[batch.key.kind].seconds(batch.units)
        if total == 0 and len(self._running) < devices:
            return 0.0  # one of them is idle
        for batch, taken_at in self._running.items():
            total += max(0.0, batch.predicted_seconds - max(0.0, now - taken_at))
        return total / max(1, devices)

    def ended(self, batch: Batch) -> None:
        """A batch that was taken is over, well or not."""
        self._running.pop(batch, None)

    def _predict(self, kind: Kind, units: int) -> float:
        if units <= 0:
            return 0.0
        cost = self.costs[kind]
        size = cost.choose(units, cap=self.caps[kind].value)
        return math.ceil(units / size) * cost.seconds_per_batch + units * cost.seconds_per_unit

    def _take_retry(self, there: Collection[float] | None) -> Batch | None:
        for _ in range(len(self._retries)):
            batch = self._retries.popleft()
            parts = tuple(part for part in batch.parts if not part.work.left)
            if not parts:
                continue
            if not batch.key.can_run(there):
                self._retries.append(batch)
                continue
            seconds = self.costs[batch.key.kind].seconds(batch.units)
            return Batch(batch.key, parts, "retry", seconds)
        return None

    def _take_waiting(
        self, now: float, *, idle: bool, there: Collection[float] | None
    ) -> Batch | None:
        plans: list[tuple[int, _Queue, Work, int, Reason]] = []
        for key, queue in list(self._queues.items()):
            work = queue.first(now)
            if work is None:
                del self._queues[key]  # its deficit is forgotten with it
                continue
            if not key.can_run(there):
                continue
            rows, reason = self._rows(queue, work, now, idle=idle)
            seconds = self.costs[key.kind].seconds(rows * work.width)
            rounds = max(0, math.ceil((seconds - queue.deficit_seconds) / _QUANTUM_SECONDS))
            plans.append((rounds, queue, work, rows, reason))
        if not plans:
            return None
        rounds, queue, work, rows, reason = min(plans, key=lambda plan: plan[0])
        for _, other, *_ in plans:
            other.deficit_seconds += rounds * _QUANTUM_SECONDS
        self._queues[queue.key] = self._queues.pop(queue.key)  # to the end of the line
        batch = Batch(queue.key, queue.take(rows, width=work.width, now=now), reason)
        seconds = self.costs[queue.key.kind].seconds(batch.units)
        queue.deficit_seconds -= seconds
        return replace(batch, predicted_seconds=seconds)

    def _rows(self, queue: _Queue, work: Work, now: float, *, idle: bool) -> tuple[int, Reason]:
        """How many rows of the first work's width to take, and why not more."""
        cost, cap = self.costs[queue.key.kind], self.caps[queue.key.kind]
        width = work.width
        units = max(width, queue.rows * width)
        size = cost.choose(units, cap=cap.value)
        reason: Reason = "full"
        if size >= units:
            reason = "idle" if idle else "drained"
        if size > 1 and cost.seconds_per_unit > 0:
            slack = work.deadline - now
            limits: tuple[tuple[float, Reason], ...] = (
                (_MAX_BATCH_SECONDS, "full"),
                (slack, "deadline"),
            )
            for limit, why in limits:
                most = (limit - cost.seconds_per_batch) / cost.seconds_per_unit
                # What comes too late even alone is taken as it is: its deadline will end it.
                if width <= most < size:
                    size, reason = int(most), why
        return max(1, min(size // width, queue.rows)), reason
