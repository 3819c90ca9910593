"""Admission: bounded lanes, refusals that say when to come back."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from service.admission import Admission, caller_var
from service.errors import ApiError
from service.metrics import Metrics


def _admission(limit: int) -> tuple[Admission, Metrics]:
    metrics = Metrics()
    return Admission({"video": limit}, workers={"video": 2}, metrics=metrics), metrics


def test_beyond_the_limit_is_503_until_somebody_leaves() -> None:
    """Places come back, also when the work inside failed."""
    admission, metrics = _admission(2)
    with admission.enter("video"), admission.enter("video"):
        with pytest.raises(ApiError) as caught:
            admission.check("video")
        assert caught.value.status == 503
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
        assert caught.value.limit == 2
    with pytest.raises(RuntimeError, match="inside"), admission.enter("video"):
        raise RuntimeError("inside")
    assert admission.in_flight("video") == 0
    assert b'vtag_rejected_total{reason="queue_full"} 1.0' in metrics.render()


def test_draining_lets_nothing_in() -> None:
    """Draining is for readiness; once closed, what comes is told to go elsewhere."""
    admission, _ = _admission(2)
    with admission.enter("video"):
        admission.drain()
        assert admission.draining
        admission.check("video")
        admission.close()
        with pytest.raises(ApiError) as caught, admission.enter("video"):
            pytest.fail("nothing may enter")
        assert caught.value.code == "draining"
        assert admission.in_flight("video") == 1


@contextmanager
def _as(caller: str | None) -> Iterator[None]:
    """Ask for places as somebody."""
    token = caller_var.set(caller)
    try:
        yield
    finally:
        caller_var.reset(token)


def _take_all(admission: Admission, places: ExitStack) -> int:
    """Enter until refused; how often it worked."""
    for number in itertools.count():
        try:
            places.enter_context(admission.enter("video"))
        except ApiError:
            return number
    raise AssertionError


def test_one_caller_leaves_places_to_another() -> None:
    """Whoever asks for ever more has three quarters alone; a newcomer is let in, then has less."""
    admission, metrics = _admission(32)
    with ExitStack() as greedy, ExitStack() as second:
        with _as("greedy"):
            assert _take_all(admission, greedy) == 24
            with pytest.raises(ApiError, match="24 of 32 places") as caught:
                admission.check("video")
            assert (caught.value.code, caught.value.status) == ("too_many_at_once", 429)
            assert int(caught.value.headers["Retry-After"]) >= 1
        with _as("second"):
            assert _take_all(admission, second) == 6
        with _as("third"), admission.enter("video"), admission.enter("video"):
            assert admission.in_flight("video") == 32
        greedy.close()
        with _as("second"):
            assert _take_all(admission, second) == 18
    assert b'vtag_rejected_total{reason="share"} 4.0' in metrics.render()
    with _as("greedy"), ExitStack() as again:
        assert _take_all(admission, again) == 24


def test_places_that_are_kept_count_as_held() -> None:
    """Bodies on their way must not keep others out either."""
    admission, _ = _admission(4)
    with ExitStack() as kept:
        with _as("greedy"):
            for _ in range(3):
                kept.enter_context(admission.keep("video"))
            with pytest.raises(ApiError, match="3 of 4 places"):
                admission.check("video")
        with _as("another"):
            admission.check("video")


def test_without_callers_nobody_shares() -> None:
    """An open service, or one with a single key, uses all of a lane."""
    admission, _ = _admission(4)
    with _as(None), ExitStack() as places:
        assert _take_all(admission, places) == 4


def test_a_lane_of_one_is_first_come_first_served() -> None:
    """There is nothing to share, and nobody is locked out of it."""
    admission, _ = _admission(1)
    with _as("greedy"), admission.enter("video"), _as("another"), pytest.raises(ApiError) as caught:
        admission.check("video")
    assert caught.value.code == "saturated"


def test_a_place_is_kept_for_a_body_that_is_on_its_way() -> None:
    """Who comes meanwhile is refused before his own body; who was promised the place has it."""
    admission, _ = _admission(2)
    with admission.enter("video"):
        with admission.keep("video"), pytest.raises(ApiError, match="saturated"):
            admission.check("video")
        with admission.enter("video"), pytest.raises(ApiError), admission.keep("video"):
            pytest.fail("there are two places")
        assert admission.in_flight("video") == 1


def test_a_place_is_not_kept_for_slow_bodies() -> None:
    """Clients that send nothing hold no places: after a moment others have them."""
    now = [0.0]
    admission = Admission(
        {"video": 2}, workers={"video": 2}, metrics=Metrics(), clock=lambda: now[0]
    )
    with admission.keep("video"), admission.keep("video"):
        with pytest.raises(ApiError):
            admission.check("video")
        now[0] += 1.0
        with admission.keep("video"), admission.enter("video"), pytest.raises(ApiError):
            admission.check("video")
    with admission.enter("video"):
        admission.check("video")


class _Pipeline:
    """Decoders in front of one encoder, in simulated time, with arrivals at many times capacity."""

    def __init__(self, *, seconds: float, deadline: float, work: Callable[[], float]) -> None:
        self.now = 0.0
        self.good = self.late = self.refused = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._free = [0.0, 0.0]  # when each of two decoders is free
        self._encoder = 0.0
        self._deadline = deadline
        self._work = work
        self._admission = Admission(
            {"video": 64}, workers={"video": 2}, metrics=Metrics(), clock=lambda: self.now
        )
        self._admission.watch(lambda _: max(0.0, min(self._free) - self.now))
        draw = random.Random(7)
        at = 0.0
        while at < seconds:
            at += draw.expovariate(20 * 2 / 0.1)  # 20 times what two decoders can do
            self._at(at, self._arrive)
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), event))

    def _arrive(self) -> None:
        place: Any = self._admission.enter("video", seconds=self._deadline)
        try:
            place.__enter__()
        except ApiError as error:
            self.refused += error.code == "saturated"
            return
        decoder = self._free.index(min(self._free))
        decoded = self._free[decoder] = max(self.now, self._free[decoder]) + self._work()
        self._encoder = max(self._encoder, decoded) + 0.02
        came = self.now
        self._at(self._encoder, lambda: self._leave(place, came))

    def _leave(self, place: Any, came: float) -> None:
        place.__exit__(None, None, None)
        if self.now - came <= self._deadline:
            self.good += 1
        else:
            self.late += 1


@pytest.mark.parametrize(("deadline", "is_even"), [(1.0, True), (2.0, True), (2.0, False)])
def test_at_twenty_times_capacity_work_is_useful_and_in_time(
    deadline: float, is_even: bool
) -> None:
    """Nine tenths of what could be done is done, and hardly anything that was let in is late."""
    draw = random.Random(3)
    work = (lambda: 0.1) if is_even else (lambda: draw.expovariate(10.0))
    pipeline = _Pipeline(seconds=60.0, deadline=deadline, work=work)
    best = 60.0 * 2 / 0.1
    assert pipeline.good >= 0.9 * best * (1.0 if is_even else 0.9)
    assert pipeline.late <= (0.01 if is_even else 0.06) * (pipeline.good + pipeline.late)
    assert pipeline.refused > 10 * pipeline.good


def test_one_slow_request_does_not_turn_away_quick_ones_for_ever() -> None:
    """After a video of an hour short deadlines are met again once the lane has been idle."""
    now = [0.0]
    admission = Admission(
        {"video": 8}, workers={"video": 1}, metrics=Metrics(), clock=lambda: now[0]
    )

    def work(seconds: float) -> None:
        with admission.enter("video", seconds=1.0):
            now[0] += seconds

    work(3600.0)
    for _ in range(100):
        work(0.01)
    with admission.enter("video"):
        admission.check("video", seconds=1.0)


def test_a_backlog_beyond_the_deadline_is_refused_at_once() -> None:
    """What the workers report counts for who has a deadline, and the time to come back with it."""
    metrics = Metrics()
    admission = Admission({"video": 8}, workers={"video": 1}, metrics=metrics)
    admission.watch(lambda _: 30.0)
    admission.check("video", seconds=1.0)  # nobody is in it: the figures are of the past
    with admission.enter("video"):
        admission.check("video")
        admission.check("video", seconds=40.0)
        with pytest.raises(ApiError) as caught:
            admission.check("video", seconds=10.0)
    assert (caught.value.code, caught.value.limit) == ("saturated", 10.0)
    assert 16 <= int(caught.value.headers["Retry-After"]) <= 24
    assert b'vtag_rejected_total{reason="deadline"} 1.0' in metrics.render()
