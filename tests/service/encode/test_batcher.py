"""The batcher: everything once, in order of deadlines, in turns, and nothing for who left."""

import asyncio
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.encode.batcher import Batcher
from service.encode.work import (
    NO_DEADLINE,
    Batch,
    Kind,
    Part,
    QueueKey,
    Work,
    after_death,
    after_failure,
    after_memory,
)
from service.frames import Slot

CLIPS, OTHER, TEXTS = (
    QueueKey("clips", 0.5),
    QueueKey("clips", 0.1),
    QueueKey("texts", None),
)


def work(
    key: QueueKey = CLIPS,
    size: int = 1,
    *,
    deadline: float = NO_DEADLINE,
    width: int = 4,
    arrived: float = 0.0,
) -> Work:
    """One that waits."""
    content = (
        Slot(0, (size, 1, 1, 1, 3)) if key.kind == "clips" else np.zeros((size, width), np.int64)
    )
    future: asyncio.Future[np.ndarray] = asyncio.Future(loop=_LOOP)
    return Work(key, size, content, deadline, arrived, future)


_LOOP = asyncio.new_event_loop()  # futures want one; nothing runs in it


def batcher(*, clips: tuple[float, float] = (0.01, 0.1), texts: float = 1e-4) -> Batcher:
    """One that knows its costs: seconds for each clip and each batch of clips, for each token."""
    made = Batcher()
    for size in (1, 2, 4, 8, 16, 32, 64):
        made.costs["clips"].add(size, clips[0] * size + clips[1])
        made.costs["texts"].add(size, texts * size)
    return made


def test_whole_clips_of_several_requests_share_a_batch() -> None:
    """Where a batch has a price, everything of one λ that waits goes together."""
    made = batcher()
    works = [work(size=size) for size in (2, 1, 3)]
    for one in works:
        made.add(one)
    batch = made.take(0.0, idle=True)
    assert batch is not None
    assert [(part.work, part.first, part.last) for part in batch.parts] == [
        (works[0], 0, 2),
        (works[1], 0, 1),
        (works[2], 0, 3),
    ]
    assert (batch.size, batch.reason) == (6, "idle")
    assert not made.waiting
    assert made.take(0.0) is None


def test_no_batch_mixes_weights_or_kinds() -> None:
    """Each λ has its own queue, and so have texts."""
    made = batcher()
    for key in (CLIPS, OTHER, TEXTS, CLIPS, OTHER, TEXTS):
        made.add(work(key))
    seen = []
    while (batch := made.take(0.0)) is not None:
        assert {part.work.key for part in batch.parts} == {batch.key}
        seen.append(batch.key)
    assert set(seen) == {CLIPS, OTHER, TEXTS}


def test_texts_of_other_lengths_wait_for_their_own_batch() -> None:
    """Nothing is padded for somebody else's sake."""
    made = batcher()
    for width in (4, 9, 4):
        made.add(work(TEXTS, size=2, width=width))
    made.costs["texts"].seconds_per_batch = 1.0
    sizes = []
    while (batch := made.take(0.0)) is not None:
        assert len({part.work.width for part in batch.parts}) == 1
        sizes.append(batch.size)
    assert sorted(sizes) == [2, 4]


@given(
    st.lists(st.one_of(st.just(NO_DEADLINE), st.floats(0, 100)), min_size=1, max_size=20),
    st.one_of(st.just(0.0), st.floats(0, 100)),
)
def test_the_earliest_deadline_goes_first_then_who_came_first(
    deadlines: list[float], now: float
) -> None:
    """One at a time: the order is that of (deadline, arrival), and what is too late comes last."""
    made = batcher(clips=(1.0, 0.0))
    works = [work(deadline=deadline) for deadline in deadlines]
    for one in works:
        made.add(one)
    taken = []
    while (batch := made.take(now)) is not None:
        taken += [part.work for part in batch.parts]
    order = sorted(range(len(works)), key=lambda n: (deadlines[n] <= now, deadlines[n], n))
    assert taken == [works[n] for n in order]


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 9)), min_size=1, max_size=20),
    st.lists(st.floats(0, 2), max_size=20),
)
def test_late_work_never_goes_before_live_work(
    asked: list[tuple[float, int]], steps: list[float]
) -> None:
    """However time passes between batches: who can still be answered does not wait for the rest."""
    made = batcher(clips=(1.0, 0.0))
    works = [work(size=size, deadline=deadline) for deadline, size in asked]
    for one in works:
        made.add(one)
    now = 0.0
    for step in steps:
        now += step
        live = [one for one in works if one.deadline > now and one.taken < one.size]
        batch = made.take(now)
        if batch is not None and live:
            assert batch.parts[0].work in live
            assert batch.parts[0].work.deadline == min(one.deadline for one in live)


def test_late_work_that_was_given_up_is_not_kept_behind_live_work() -> None:
    """It would never come to the front while live work comes."""
    made = batcher()
    late = work(deadline=1.0)
    made.add(late)
    for _ in range(3):
        made.add(work(size=200))
    assert made.take(2.0) is not None
    late.future.cancel()
    made.forget(late)
    assert late not in made._queues[CLIPS].works()


def test_a_tight_deadline_makes_a_smaller_batch() -> None:
    """Ten clips take 0.2 s; who must be done in 0.15 s goes in a batch of five."""
    made = batcher(clips=(0.01, 0.1))
    made.add(work(deadline=10.15))
    for _ in range(9):
        made.add(work())
    batch = made.take(10.0)
    assert batch is not None
    assert (batch.size, batch.reason) == (4, "deadline") or batch.size == 5
    late = made.take(99.0)
    assert late is not None
    assert late.size == 10 - batch.size


def test_ten_thousand_texts_do_not_starve_a_video() -> None:
    """A clip that comes later waits about as long as it takes itself; no batch of texts is long."""
    made = batcher(clips=(0.1, 0.0), texts=1e-4)
    made.add(work(TEXTS, size=10_000, width=10))
    first = made.take(0.0)
    assert first is not None
    made.add(work(CLIPS))
    batches = [made.take(0.0) for _ in range(500)]
    kinds = [batch.key.kind for batch in batches if batch is not None]
    assert "clips" in kinds
    before = batches[: kinds.index("clips")]
    assert sum(batch.predicted_seconds for batch in before if batch is not None) <= 0.15
    assert all(batch is not None and batch.predicted_seconds <= 0.26 for batch in batches)


@given(
    costs=st.tuples(st.floats(0.001, 0.2), st.floats(0.001, 0.2)),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=25, deadline=None)
def test_two_lambdas_get_the_same_time(costs: tuple[float, float], sizes: tuple[int, int]) -> None:
    """Deficit round robin: while both wait, their seconds differ by a batch or two at most."""
    made = batcher(clips=(costs[0], costs[1]))
    spent: dict[QueueKey, float] = defaultdict(float)
    left = {CLIPS: 800 * sizes[0], OTHER: 800 * sizes[1]}
    largest = 0.0
    for key, size in zip((CLIPS, OTHER), sizes, strict=True):
        for _ in range(800):
            made.add(work(key, size=size))
    for _ in range(60):
        batch = made.take(0.0)
        assert batch is not None
        left[batch.key] -= batch.size
        if min(left.values()) < 64:
            break
        spent[batch.key] += batch.predicted_seconds
        largest = max(largest, batch.predicted_seconds)
    assert abs(spent[CLIPS] - spent[OTHER]) <= 2 * largest + 0.05


def test_who_left_is_not_taken_and_not_counted() -> None:
    """Before batching and between the batches of one request."""
    made = batcher(clips=(1.0, 0.0))
    gone, stays = work(size=3), work()
    made.add(gone)
    made.add(stays)
    first = made.take(0.0)
    assert first is not None
    assert first.works == (gone,)
    made.ended(first)
    assert made.backlog_seconds() == pytest.approx(3.0)
    gone.future.cancel()
    made.forget(gone)
    assert made.waiting_rows("clips") == 1
    assert made.backlog_seconds() == pytest.approx(1.0)
    second = made.take(0.0)
    assert second is not None
    assert second.works == (stays,)
    made.again(first.parts)
    assert made.take(0.0) is None


def test_the_oldest_work_tells_its_age() -> None:
    """Of each kind, of what still waits for an answer to any of its rows."""
    made = batcher()
    assert made.oldest_seconds("clips", 10.0) == 0.0
    old, young = work(arrived=1.0), work(arrived=4.0)
    for each in (young, old, work(TEXTS, arrived=2.0)):
        made.add(each)
    assert made.oldest_seconds("clips", 10.0) == 9.0
    assert made.oldest_seconds("texts", 10.0) == 8.0
    old.future.cancel()
    assert made.oldest_seconds("clips", 10.0) == 6.0


def test_work_at_weights_that_a_device_lacks_waits_or_is_for_others() -> None:
    """Work at the others goes on."""
    made = batcher()
    made.add(work(CLIPS))
    made.add(work(OTHER))
    taken = [made.take(0.0, there={0.1}), made.take(0.0, there={0.1})]
    assert taken[0] is not None
    assert (taken[0].key, taken[1]) == (OTHER, None)
    assert made.clip_weights == {0.5}
    assert made.take(0.0, there={0.5}) is not None


def test_the_backlog_is_shared_by_the_devices_that_work() -> None:
    """Two take half the time; one that is idle begins at once; what runs counts as far as it is."""
    made = batcher(clips=(1.0, 0.0))
    for _ in range(4):
        made.add(work())
    assert made.backlog_seconds(0.0) == pytest.approx(4.0)
    assert made.backlog_seconds(0.0, devices=2) == pytest.approx(2.0)
    running = [made.take(0.0), made.take(0.0), made.take(0.0)]
    assert made.backlog_seconds(0.5, devices=2) == pytest.approx((1.0 + 3 * 0.5) / 2)
    running.append(made.take(0.5))
    for batch in running[:2]:
        assert batch is not None
        made.ended(batch)
    assert made.backlog_seconds(0.5, devices=2) == pytest.approx((0.5 + 1.0) / 2)
    assert made.backlog_seconds(0.5, devices=3) == 0


def _run(batch: Batch, *, poison: set[Work]) -> int:
    """Run until all is settled, failing each batch with poison in it; return the batches run."""
    todo, runs = [batch], 0
    while todo:
        now = todo.pop(0)
        runs += 1
        if not poison & set(now.works):
            for part in now.parts:
                part.work.fill(part.first, np.ones((part.size, 2), np.float32))
            continue
        again, failed = after_failure(now)
        for one in failed:
            one.fail(ValueError("bad"))
        todo += [Batch(now.key, tuple(parts), "retry") for parts in again]
    return runs


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=16), data=st.data())
def test_only_what_is_bad_fails(sizes: list[int], data: st.DataObject) -> None:
    """Bisecting a batch: each good work is answered, each bad one fails, in few runs."""
    works = [work(size=size) for size in sizes]
    batch = Batch(CLIPS, tuple(Part(one, 0, one.size) for one in works), "idle")
    poison = set(data.draw(st.lists(st.sampled_from(works), max_size=2, unique=True)))
    members = set(batch.works)
    runs = _run(batch, poison=poison)
    for one in members:
        assert one.left
        assert (one.future.exception() is not None) == (one in poison)
    assert runs <= 1 + len(poison & members) * (2 * math.ceil(math.log2(len(members) + 1)) + 2)


def test_a_death_is_survived_once_and_then_alone() -> None:
    """Each work of the batch runs again by itself; the one that kills twice has failed."""
    works = [work(), work()]
    made = batcher()
    for one in works:
        made.add(one)
    batch = made.take(0.0)
    assert batch is not None
    again, failed = after_death(batch)
    assert ([len(parts) for parts in again], failed) == ([1, 1], [])
    alone = Batch(batch.key, tuple(again[1]), "retry")
    assert after_death(alone) == ([], [works[1]])


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9), cap=st.integers(1, 20))
def test_what_has_no_memory_is_cut(sizes: list[int], cap: int) -> None:
    """Every row once more, in order, in pieces of at most the cap and at most half."""
    works = [work(size=size) for size in sizes]
    batch = Batch(CLIPS, tuple(Part(one, 0, one.size) for one in works), "idle")
    again, failed = after_memory(batch, cap=cap)
    assert not failed
    rows = [
        (part.work, n) for parts in again for part in parts for n in range(part.first, part.last)
    ]
    assert rows == [(part.work, n) for part in batch.parts for n in range(part.first, part.last)]
    if batch.size > 1:
        limit = max(1, min(cap, batch.size // 2))
        assert all(sum(part.size for part in parts) <= limit for parts in again)


class Everything(RuleBasedStateMachine):
    """Any order of events: counts stay right, and each row is given out once."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher()
        self.batcher.costs["clips"].add(1, 0.02)
        self.works: list[Work] = []
        self.given: dict[Work, int] = defaultdict(int)

    @rule(
        kind=st.sampled_from(["clips", "texts"]),
        weight=st.sampled_from([None, 0.1, 0.5]),
        size=st.integers(1, 40),
        width=st.integers(1, 3),
        deadline=st.floats(0, 10),
    )
    def come(
        self, kind: Kind, weight: float | None, size: int, width: int, deadline: float
    ) -> None:
        """A request."""
        one = work(QueueKey(kind, weight), size, deadline=deadline, width=width)
        self.works.append(one)
        self.batcher.add(one)

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client that leaves."""
        one = data.draw(st.sampled_from(self.works))
        one.future.cancel()
        if data.draw(st.booleans()):  # else the batcher has to notice by itself
            self.batcher.forget(one)

    @rule(now=st.floats(0, 10), seconds=st.floats(0.001, 1))
    def run(self, now: float, seconds: float) -> None:
        """A batch."""
        batch = self.batcher.take(now)
        if batch is None:
            return
        for part in batch.parts:
            assert not part.work.left
            assert part.first == self.given[part.work]
            self.given[part.work] = part.last
        self.batcher.finished(batch, seconds=seconds)
        self.batcher.ended(batch)

    @rule()
    def drain(self) -> None:
        """Everything that waits is taken in the end, and then nothing is counted."""
        while (batch := self.batcher.take(5.0)) is not None:
            for part in batch.parts:
                assert part.first == self.given[part.work]
                self.given[part.work] = part.last
            self.batcher.ended(batch)
        assert all(self.given[one] == one.size for one in self.works if not one.left)
        assert not self.batcher.waiting
        assert self.batcher.backlog_seconds() == 0

    @invariant()
    def counts(self) -> None:
        """What waits is never less than what is left to do."""
        for kind in ("clips", "texts"):
            waiting = sum(
                one.size - one.taken for one in self.works if one.key.kind == kind and not one.left
            )
            assert self.batcher.waiting_rows(kind) >= waiting


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
