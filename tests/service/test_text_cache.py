"""The text cache: two levels, one flight per key, and a Redis that may do anything."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from service.cached_text import CachedText, pack, redis_key, unpack
from service.text_cache import TextCache
from tests.redis_server import RedisServer

DIMENSION = 16


def vector_of(key: str) -> CachedText:
    """The one right value of a key."""
    draw = np.random.default_rng(abs(hash(key)) % 2**32)
    vector = draw.normal(size=DIMENSION)
    return CachedText((vector / np.linalg.norm(vector)).astype(np.float32), len(key) % 2 == 0)


class Encoder:
    """Counts what it is asked for."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.asked: list[str] = []
        self.deadlines: list[float | None] = []
        self.largest = 0
        self.fail = False
        self.open = asyncio.Event()
        """Nothing is answered before."""
        self.open.set()
        self._seconds = seconds

    async def __call__(self, keys: Sequence[str], deadline: float | None) -> Sequence[CachedText]:
        """Make the values of `keys`."""
        self.asked += keys
        self.deadlines.append(deadline)
        self.largest = max(self.largest, len(keys))
        await asyncio.sleep(self._seconds)
        await self.open.wait()
        if self.fail:
            raise RuntimeError("the encoder failed")
        return [vector_of(key) for key in keys]


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[TextCache]:
    """A cache, closed afterwards."""
    cache = TextCache(**{"redis_timeout_seconds": 20.0, **options})  # busy is not broken
    try:
        yield cache
    finally:
        await cache.close()


async def get(
    cache: TextCache,
    keys: Sequence[str],
    encoder: Encoder,
    *,
    step: int = 4,
    deadline: float | None = None,
) -> tuple[list[CachedText], int]:
    """Ask, and check that every value is the right one."""
    values, hits = await cache.get(
        keys, dimension=DIMENSION, compute=encoder, keys_per_compute=step, deadline=deadline
    )
    for key, value in zip(keys, values, strict=True):
        expected = vector_of(key)
        assert np.array_equal(value.vector, expected.vector)
        assert value.truncated == expected.truncated
    return values, hits


async def settle(cache: TextCache) -> None:
    """Wait until nothing runs in the background (writes to Redis)."""
    while cache.pending:
        await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_a_value_is_computed_once() -> None:
    """The second request is all hits and asks the encoder nothing; order and repeats are kept."""
    encoder = Encoder()
    async with opened() as cache:
        assert (await get(cache, ["a", "bb", "a"], encoder))[1] == 0
        assert (await get(cache, ["bb", "a", "ccc"], encoder))[1] == 2
        assert sorted(encoder.asked) == ["a", "bb", "ccc"]
        assert (cache.local_hits, cache.computed) == (2, 3)


@pytest.mark.anyio
async def test_requests_at_the_same_time_share_one_flight() -> None:
    """Fifty requests for one cold label set encode it once."""
    encoder = Encoder(seconds=0.05)
    keys = [str(number) for number in range(10)]
    async with opened() as cache:
        await asyncio.gather(*(get(cache, keys, encoder) for _ in range(50)))
        assert sorted(encoder.asked) == sorted(keys)


@pytest.mark.anyio
async def test_large_sets_are_computed_in_pieces() -> None:
    """The encoder never gets more keys at a time than asked."""
    encoder = Encoder()
    async with opened() as cache:
        await get(cache, [str(number) for number in range(1000)], encoder, step=64)
    assert encoder.largest == 64


@pytest.mark.anyio
async def test_the_least_recently_used_value_goes_first() -> None:
    """The number of kept values is bounded."""
    encoder = Encoder()
    async with opened(capacity=2) as cache:
        for key in ("a", "b", "a", "c"):
            await get(cache, [key], encoder)
        assert (await get(cache, ["a"], encoder))[1] == 1
        assert (await get(cache, ["b"], encoder))[1] == 0


@pytest.mark.anyio
async def test_a_set_larger_than_the_cache_is_still_answered() -> None:
    """Eviction during a request loses nothing of that request."""
    async with opened(capacity=3) as cache:
        await get(cache, [str(number) for number in range(50)], Encoder())


@pytest.mark.anyio
async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    """Everybody in the flight gets the error; the next request tries again."""
    encoder = Encoder(seconds=0.02)
    encoder.fail = True
    async with opened() as cache:
        results = await asyncio.gather(
            *(get(cache, ["a", "b"], encoder) for _ in range(3)), return_exceptions=True
        )
        assert [str(result) for result in results] == ["the encoder failed"] * 3
        encoder.fail = False
        await get(cache, ["a", "b"], encoder)


@pytest.mark.anyio
async def test_a_request_that_leaves_does_not_take_the_flight_along() -> None:
    """Cancelling the one who asked first leaves the others their answer."""
    encoder = Encoder(seconds=0.05)
    async with opened() as cache:
        first = asyncio.create_task(get(cache, ["a"], encoder))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(get(cache, ["a"], encoder))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert encoder.asked == ["a"]


@given(st.text(max_size=50), st.integers(0, 200), st.binary(min_size=1, max_size=1))
def test_no_damaged_byte_gets_through(key: str, position: int, byte: bytes) -> None:
    """A value comes back from its own bytes, and from no others."""
    value = vector_of("x")
    raw = pack(key, value)
    back = unpack(key, raw, dimension=DIMENSION)
    assert back is not None
    assert np.array_equal(back.vector, value.vector)
    position %= len(raw)
    changed = raw[:position] + byte + raw[position + 1 :]
    if changed != raw:
        assert unpack(key, changed, dimension=DIMENSION) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_miss(raw: bytes) -> None:
    """Garbage is never a vector and never an error."""
    assert unpack("key", raw, dimension=DIMENSION) is None


def test_values_of_other_keys_sizes_and_lengths_are_misses() -> None:
    """A value moved to another key, of another dimension, cut, or not of unit length."""
    value = vector_of("x")
    raw = pack("x", value)
    assert unpack("y", raw, dimension=DIMENSION) is None
    assert unpack("x", raw, dimension=DIMENSION + 1) is None
    assert unpack("x", raw[:-1], dimension=DIMENSION) is None
    long = CachedText(2 * value.vector, truncated=False)
    assert unpack("x", pack("x", long), dimension=DIMENSION) is None


def test_what_people_typed_does_not_show_in_redis() -> None:
    """Keys are digests, of any text at all."""
    assert b"secret" not in redis_key("secret label \ud800")
    assert len({redis_key(key) for key in ("a", "b", "A", "a ")}) == 4


@pytest.mark.anyio
async def test_two_processes_share_through_redis(redis_server: RedisServer) -> None:
    """A second cache with an empty memory finds everything in Redis."""
    keys = [str(number) for number in range(600)]
    async with opened(redis_url=redis_server.url) as first:
        await get(first, keys, Encoder(), step=256)
        await settle(first)
    encoder = Encoder()
    async with opened(redis_url=redis_server.url) as second:
        assert (await get(second, keys, encoder))[1] == len(keys)
        assert (encoder.asked, second.redis_hits) == ([], len(keys))
        assert not second.degraded


@pytest.mark.anyio
async def test_redis_that_was_never_there_costs_nothing_but_time() -> None:
    """The answer is right, Redis is asked once, and the cache says that it is degraded."""
    async with opened(redis_url="redis://127.0.0.1:1/0", cooldown_seconds=60) as cache:
        await get(cache, ["a", "b"], Encoder())
        await get(cache, ["c"], Encoder())
        assert cache.degraded
        assert cache.redis_failures == 1


@pytest.mark.anyio
async def test_redis_killed_between_and_during_requests(redis_server: RedisServer) -> None:
    """Every answer stays right; when it is back, it is used again."""
    options = {"redis_url": redis_server.url, "cooldown_seconds": 0.1}
    async with opened(**options) as cache:
        await get(cache, ["a"], Encoder())
        await settle(cache)
        asking = asyncio.create_task(
            get(cache, [str(n) for n in range(200)], Encoder(seconds=0.005), step=4)
        )
        await asyncio.sleep(0.05)
        redis_server.kill()
        await asking
        await get(cache, ["b", "cc"], Encoder())
        assert cache.degraded
        redis_server.restart()
        async with asyncio.timeout(60):
            while cache.degraded:  # until the pause is over, and a key was asked for
                await asyncio.sleep(0.05)
                await get(cache, [f"back {time.monotonic()}"], Encoder())
        await get(cache, ["back"], Encoder())
        await settle(cache)
    assert redis.Redis(port=redis_server.port).exists(redis_key("back"))


@pytest.mark.anyio
async def test_redis_that_hangs_is_left_alone_for_a_while(redis_server: RedisServer) -> None:
    """A frozen Redis costs one time limit, then nothing until the pause is over."""
    options = {"redis_url": redis_server.url, "redis_timeout_seconds": 0.2}
    async with opened(**options, cooldown_seconds=30) as cache:
        await get(cache, ["a"], Encoder())
        await settle(cache)
        redis_server.stop()
        began = time.monotonic()
        await get(cache, ["b"], Encoder())
        assert time.monotonic() - began >= 0.2
        failures = cache.redis_failures
        assert failures > 0
        await get(cache, ["c"], Encoder())
        assert cache.redis_failures == failures, "it was asked again before the pause was over"
        redis_server.cont()


@pytest.mark.anyio
@pytest.mark.parametrize("damage", ["garbage", "short", "other", "list"])
async def test_redis_full_of_nonsense(redis_server: RedisServer, damage: str) -> None:
    """Garbage, cut values, another model's values and other types are computed anew, and mended."""
    keys = [str(number) for number in range(20)]
    async with opened(redis_url=redis_server.url) as cache:
        await get(cache, keys, Encoder())
        await settle(cache)
    with redis.Redis(port=redis_server.port) as client:
        for key in keys:
            name = redis_key(key)
            if damage == "garbage":
                client.set(name, b"\xff" * 85)
            elif damage == "short":
                client.set(name, pack(key, vector_of(key))[:-3])
            elif damage == "other":
                client.set(name, pack(key + "?", vector_of(key)))
            else:
                client.delete(name)
                client.rpush(name, b"a list")
    encoder = Encoder()
    async with opened(redis_url=redis_server.url) as cache:
        await get(cache, keys, encoder)
        assert sorted(encoder.asked) == sorted(keys)
        await settle(cache)
    async with opened(redis_url=redis_server.url) as cache:
        assert (await get(cache, keys, Encoder()))[1] == len(keys)


@pytest.mark.anyio
async def test_redis_that_refuses_writes(redis_server: RedisServer) -> None:
    """Out of memory: reads fail nothing, writes are given up, answers are right."""
    with redis.Redis(port=redis_server.port) as client:
        client.config_set("maxmemory", "1")
    async with opened(redis_url=redis_server.url, cooldown_seconds=0.05) as cache:
        await get(cache, ["a", "b"], Encoder())
        await settle(cache)
        assert cache.redis_failures >= 1
        await get(cache, ["c"], Encoder())


@pytest.mark.anyio
async def test_redis_is_asked_whether_it_is_there(redis_server: RedisServer) -> None:
    """Without any request: its loss shows, and its return after the pause; each call is timed."""
    calls: list[tuple[str, float]] = []
    async with opened(redis_url=redis_server.url, cooldown_seconds=0.05) as cache:
        cache.observe = lambda name, seconds: calls.append((name, seconds))
        await cache.ping()
        assert not cache.degraded
        redis_server.kill()
        await cache.ping()
        assert cache.degraded
        redis_server.restart()
        async with asyncio.timeout(30):
            while cache.degraded:
                await cache.ping()
                await asyncio.sleep(0.01)
    assert len(calls) >= 3
    assert {name for name, _ in calls} == {"ping"}
    assert all(seconds > 0 for _, seconds in calls)
