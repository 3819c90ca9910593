"""The shared fixtures do what other tests rely on."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redis_server import RedisServer


def test_redis_kill_refuses_and_restart_serves_the_same_url(redis_server: RedisServer) -> None:
    """A killed Redis refuses connections; restarted it answers, empty, at the same address."""
    client = redis.Redis.from_url(redis_server.url, retry=Retry(NoBackoff(), 0))
    client.set("key", "value")

    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        client.get("key")

    redis_server.restart()
    assert client.get("key") is None


def test_redis_stopped_hangs_and_continues_with_its_data(redis_server: RedisServer) -> None:
    """A stopped Redis times out instead of refusing and has kept its keys when continued."""
    client = redis.Redis.from_url(redis_server.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    client.set("key", "value")

    redis_server.stop()
    with pytest.raises(redis.TimeoutError):
        client.get("key")

    redis_server.cont()
    assert client.get("key") == b"value"


def test_redis_close_reaps_a_stopped_process(redis_server: RedisServer) -> None:
    """Even a frozen server is ended and reaped by `close`."""
    redis_server.stop()
    redis_server.close()
    redis_server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(redis_server.process.pid, 0)


def test_each_postgres_database_is_fresh_and_has_pgvector(postgres: str) -> None:
    """The DSN names an empty database in which the vector extension can be created."""

    async def distance() -> float:
        connection = await asyncpg.connect(postgres)
        try:
            await connection.execute("CREATE EXTENSION vector")
            value: float = await connection.fetchval("SELECT '[0,3]'::vector <-> '[4,0]'::vector")
            return value
        finally:
            await connection.close()

    assert asyncio.run(distance()) == 5.0


def test_missing_shared_data_skips_with_its_name(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for data that is not there skips the test, or fails it where data is required."""
    monkeypatch.delenv("VTAG_TEST_REQUIRE_DATA", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no/such\.file"):
        shared_data("no/such.file")
    monkeypatch.setenv("VTAG_TEST_REQUIRE_DATA", "1")
    with pytest.raises(pytest.fail.Exception, match=r"no/such\.file"):
        shared_data("no/such.file")
