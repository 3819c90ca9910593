"""Redis killed, slow, deaf, full, read-only, emptied, full of nonsense: answers do not change."""

import itertools
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import redis

from tests.faults.conftest import World
from tests.faults.load import under_load, until

pytestmark = pytest.mark.timeout(400)

_words = itertools.count()


@pytest.fixture
def store(world: World) -> Iterator[redis.Redis]:
    """A client of the Redis behind the proxy; the server is whole again after the test."""
    with redis.Redis(port=world.redis.port, socket_timeout=5) as client:
        yield client
        if world.redis.process.poll() is not None:
            world.redis.restart()
        client.config_set("maxmemory", "0")
        client.replicaof("NO", "ONE")
        client.flushall()
    world.redis_proxy.heal()
    until(lambda: _asked(world) and world.components()["redis"] == "ok")


def _asked(world: World) -> bool:
    """Make the service ask Redis, with a label that no cache has."""
    cold = f"cold {next(_words)}"
    answer = httpx.post(f"{world.url}/embeddings", json={"input": cold}, timeout=60)
    return answer.status_code == 200


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _degraded(world: World) -> bool:
    return _asked(world) and world.components()["redis"] == "degraded"


@pytest.mark.parametrize(
    "fault",
    [
        *("killed", "deaf", "read-only"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("slow", "full", "emptied")),
    ],
)
def test_what_becomes_of_redis_changes_no_answer(
    world: World, store: redis.Redis, fault: str
) -> None:
    """No request fails or waits for it; it is shown as degraded, and readiness stays."""
    with under_load(world.url, world.film, world.expect) as answers:
        if fault == "killed":
            world.redis.kill()
            world.redis_proxy.cut()
        elif fault == "slow":
            world.redis_proxy.delay_seconds = 2.0
        elif fault == "deaf":
            world.redis_proxy.deaf = True
        elif fault == "full":
            store.config_set("maxmemory-policy", "noeviction")
            store.config_set("maxmemory", "1")
        elif fault == "read-only":
            store.replicaof("127.0.0.1", "1")
            store.config_set("replica-serve-stale-data", "yes")
        else:
            store.flushall()
        assert all(_asked(world) for _ in range(4))
        if fault != "emptied":
            until(lambda: _degraded(world))
        assert world.ready()
        assert max(_seconds(lambda: _asked(world)) for _ in range(5)) < 30
    answers.require()


def test_nonsense_in_the_cache_is_never_an_answer(world: World, store: redis.Redis) -> None:
    """Every entry damaged in another way: bits, lengths, kinds, and vectors of other labels."""
    texts = [f"known {next(_words)}" for _ in range(12)]

    def embedded() -> list[list[float]]:
        answer = httpx.post(f"{world.url}/embeddings", json={"input": texts}, timeout=60)
        assert answer.status_code == 200, answer.text
        return [entry["embedding"] for entry in answer.json()["data"]]

    expected = embedded()
    until(lambda: len(store.keys("vtag:text:*")) >= len(texts))
    keys = store.keys("vtag:text:*")
    values = [store.get(key) for key in keys]
    kinds = itertools.cycle(range(7))
    for position, (key, value, kind) in enumerate(zip(keys, values, kinds, strict=False)):
        assert isinstance(value, bytes)
        store.delete(key)
        if kind == 0:
            store.set(key, bytes([value[0] ^ 1]) + value[1:])
        elif kind == 1:
            store.set(key, value[:-1])
        elif kind == 2:
            store.set(key, value[:-4] + b"\x7f\xc0\x00\x00")
        elif kind == 3:
            store.set(key, values[(position + 1) % len(values)] or b"")
        elif kind == 4:
            store.set(key, b"")
        elif kind == 5:
            store.rpush(key, b"a list")
        else:
            store.set(key, value * 2)
    _forget(world)
    assert embedded() == [pytest.approx(each, abs=1e-5) for each in expected]
    with under_load(world.url, world.film, world.expect) as answers:
        pass
    answers.require()


def _forget(world: World) -> None:
    """Overrun the memory of the process, so that Redis is asked again."""
    for first in range(0, 600, 200):
        inputs = [f"filler {first + number} {next(_words)}" for number in range(200)]
        answer = httpx.post(f"{world.url}/embeddings", json={"input": inputs}, timeout=90)
        assert answer.status_code == 200, answer.text
