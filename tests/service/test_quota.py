"""Quotas: a rate that refills evenly, shared through Redis, and places at the same time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import quota
from service.quota import WINDOW_SECONDS, Quotas, take
from tests.redis_server import RedisServer


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 200),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=400),
)
def test_no_window_holds_more_than_twice_the_limit(limit: int, gaps: list[float]) -> None:
    """A burst of the limit, then one each window / limit: what any window can see is bounded."""
    now, busy = 0.0, 0.0
    allowed = []
    for gap in gaps:
        now += gap
        ok, busy = take(busy, now=now, limit=limit)
        if ok:
            allowed.append(now)
    for first in range(len(allowed)):
        inside = [t for t in allowed[first:] if t < allowed[first] + WINDOW_SECONDS]
        assert len(inside) <= 2 * limit
    burst = [t for t in allowed if t == allowed[0]]
    assert len(burst) <= limit


@given(st.integers(1, 500), st.floats(0, 1e7))
def test_a_whole_limit_can_be_sent_at_once_and_not_one_more(limit: int, now: float) -> None:
    """After a pause of a window everything is there again, however large the clock's value."""
    busy = 0.0
    answers = []
    for _ in range(limit + 1):
        ok, busy = take(busy, now=now, limit=limit)
        answers.append(ok)
    assert answers == [True] * limit + [False]
    assert take(busy, now=now + WINDOW_SECONDS + 1e-3, limit=limit)[0]


def test_a_clock_that_jumps_back_does_not_lock_anybody_out() -> None:
    """What was taken in the future is forgotten but for one window."""
    _, busy = take(0.0, now=10_000.0, limit=10)
    assert take(busy, now=1.0 + WINDOW_SECONDS, limit=10) == (False, 1.0 + 2 * WINDOW_SECONDS)
    assert take(busy, now=busy - 2.0, limit=10)[0]


@pytest.mark.anyio
async def test_headers_tell_how_much_is_left_and_when_more_comes() -> None:
    """Remaining counts down; the time to come back is that of one request, not of the window."""
    clock = _Clock()
    quotas = Quotas(clock=clock)
    standings = [await quotas.count("a", limit=6) for _ in range(7)]
    assert [standing.remaining for standing in standings] == [5, 4, 3, 2, 1, 0, 0]
    assert [standing.allowed for standing in standings] == [True] * 6 + [False]
    last = standings[-1]
    assert last.headers() == {
        "RateLimit-Policy": '"default";q=6;w=60',
        "RateLimit": '"default";r=0;t=60',
    }
    assert last.retry_seconds == pytest.approx(10)
    clock.now += last.retry_seconds
    assert (await quotas.count("a", limit=6)).allowed
    assert (await quotas.count("b", limit=6)).remaining == 5


def test_places_come_back_whatever_happens_inside() -> None:
    """A refused one takes no place; a failure gives its place back."""
    quotas = Quotas()
    with quotas.place("a", limit=1) as first:
        assert first
        with quotas.place("a", limit=1) as second:
            assert not second
        with quotas.place("b", limit=1) as other:
            assert other
    with pytest.raises(RuntimeError), quotas.place("a", limit=1):
        raise RuntimeError
    with quotas.place("a", limit=1) as again:
        assert again


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is only slow, as on a busy machine, is not given up."""
    monkeypatch.setattr(quota, "_REDIS_SECONDS", 20.0)


@pytest.mark.anyio
@pytest.mark.usefixtures("patient")
async def test_replicas_share_a_rate_through_redis(redis_server: RedisServer) -> None:
    """Two processes' worth of quotas count together; the key goes away by itself."""
    url = redis_server.url
    one, two = Quotas(redis_url=url), Quotas(redis_url=url)
    try:
        found = [await quotas.count("a", limit=5) for quotas in (one, two) * 3]
        assert [standing.allowed for standing in found] == [True] * 5 + [False]
        assert [standing.remaining for standing in found[:5]] == [4, 3, 2, 1, 0]
        assert 0 < found[-1].retry_seconds <= 12
        assert 30 < found[-1].reset_seconds <= 60
    finally:
        await one.close()
        await two.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("patient")
async def test_without_redis_each_replica_counts_for_itself(redis_server: RedisServer) -> None:
    """A Redis that dies costs one short wait, not the limit: counting goes on here."""
    clock = _Clock()
    quotas = Quotas(redis_url=redis_server.url, clock=clock)
    try:
        assert (await quotas.count("a", limit=2)).allowed
        redis_server.kill()
        async with asyncio.timeout(60):
            found = [(await quotas.count("a", limit=2)).allowed for _ in range(3)]
        assert found == [True, True, False]
        redis_server.restart()
        clock.now += 6
        assert (await quotas.count("b", limit=2)).remaining == 1
    finally:
        await quotas.close()
