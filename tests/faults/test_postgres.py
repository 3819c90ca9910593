"""Postgres cut off, slow, deaf, read-only, full: tagging goes on, nothing is half written."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.drawn_video import draw_video
from tests.faults.conftest import World
from tests.faults.load import tag, under_load, until

pytestmark = pytest.mark.timeout(400)

AWAY = {(503, "index_unavailable"), (504, "deadline_exceeded")}

_numbers = itertools.count(1)


def _sql(dsn: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


@pytest.fixture
def new_film(tmp_path: Path) -> Callable[[], bytes]:
    """A video that was never sent, at each call."""

    def draw() -> bytes:
        number = next(_numbers)
        path = draw_video(tmp_path / f"{number}.mp4", seconds=1.5, width=96 + 2 * number)
        return path.read_bytes()

    return draw


@pytest.fixture
def indexed(world: World, new_film: Callable[[], bytes]) -> Iterator[str]:
    """A video that is in the index before the fault, and must be there after it."""
    answer = _index(world, new_film())
    assert answer.status_code == 201, answer.text
    stored = answer.json()["id"]
    yield stored
    _healed(world)
    until(lambda: _found(world, stored))
    assert httpx.get(f"{world.url}/videos/{stored}", timeout=60).status_code == 200


def _healed(world: World) -> None:
    world.postgres_proxy.heal()
    _sql(
        world.postgres,
        "SET default_transaction_read_only = off",
        "ALTER DATABASE faults RESET default_transaction_read_only",
        "DROP TRIGGER IF EXISTS full_disk ON vtag.segments",
    )
    world.postgres_proxy.cut()


def _index(world: World, film: bytes) -> httpx.Response:
    return httpx.post(f"{world.url}/videos", files={"video": film}, timeout=120)


def _search(world: World, **more: Any) -> httpx.Response:
    body = {"query": {"embedding": [1.0] * 8}, "top_k": 1000, **more}
    return httpx.post(f"{world.url}/search", json=body, timeout=120)


def _found(world: World, stored: str) -> bool:
    answer = _search(world)
    if answer.status_code != 200:
        return False
    return stored in {hit["video_id"] for hit in answer.json()["data"]}


def _problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_connections_that_break_are_made_anew(world: World, indexed: str) -> None:
    """All at once, again and again, while searches run: asked once more, or told to come back."""
    with under_load(world.url, world.film, world.expect, clients=1) as answers:
        for _ in range(10):
            world.postgres_proxy.cut()
            answer = _search(world)
            assert answer.status_code == 200 or _problem(answer) in AWAY
    answers.require()
    until(lambda: _found(world, indexed))


@pytest.mark.slow
def test_sessions_killed_by_the_server_are_made_anew(
    world: World, indexed: str, new_film: Callable[[], bytes]
) -> None:
    """pg_terminate_backend of every session, while videos are indexed: all or nothing of each."""
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'faults' AND pid <> pg_backend_pid()"
    )
    stored = {indexed}
    for _ in range(4):
        _sql(world.postgres, kill)
        answer = _index(world, new_film())
        if answer.status_code == 201:
            stored.add(answer.json()["id"])
        else:
            assert _problem(answer) in AWAY
    until(lambda: all(_found(world, each) for each in stored))
    assert len(stored) > 1


@pytest.mark.slow
def test_a_slow_database_slows_searches_only(world: World, indexed: str) -> None:
    """A second each way: tagging does not notice, searches still come, readiness says so."""
    world.postgres_proxy.delay_seconds = 1.0
    with under_load(world.url, world.film, world.expect, clients=1) as answers:
        answer = _search(world)
        assert answer.status_code == 200 or _problem(answer) in AWAY
        began = time.monotonic()
        assert tag(world.url, world.film).status_code == 200
        assert time.monotonic() - began < 60
    answers.require()
    world.postgres_proxy.delay_seconds = 0.0
    until(lambda: _found(world, indexed))


@pytest.mark.slow
def test_a_deaf_database_takes_readiness_and_nothing_else(world: World, indexed: str) -> None:
    """Connections are open and nothing answers: index down, tagging well, searches end in time."""
    world.postgres_proxy.deaf = True
    with under_load(world.url, world.film, world.expect, clients=1) as answers:
        until(lambda: world.components()["index"] == "down")
        assert httpx.get(f"{world.url}/healthz", timeout=10).status_code == 200
        began = time.monotonic()
        assert _problem(_search(world)) in AWAY
        assert time.monotonic() - began < 90
    answers.require()
    world.postgres_proxy.heal()
    until(lambda: _found(world, indexed))


def test_a_read_only_database_can_be_searched(
    world: World, indexed: str, new_film: Callable[[], bytes]
) -> None:
    """Writing is refused with 503 and can be tried later; reading and tagging go on."""
    film = new_film()
    _sql(world.postgres, "ALTER DATABASE faults SET default_transaction_read_only = on")
    world.postgres_proxy.cut()
    with under_load(world.url, world.film, world.expect, clients=1) as answers:
        until(lambda: _found(world, indexed))
        refused = _index(world, film)
        assert _problem(refused) == (503, "index_unavailable")
        assert refused.json()["retryable"] is True
        assert refused.headers["retry-after"]
        deleted = httpx.delete(f"{world.url}/videos/{indexed}", timeout=60)
        assert _problem(deleted) == (503, "index_unavailable")
        job = httpx.post(
            f"{world.url}/lambda/evaluate",
            json={"videos": [{"id": indexed, "label": "a"}], "classes": ["a", "b"]},
            timeout=60,
        )
        assert _problem(job) == (503, "index_unavailable")
    answers.require()
    _healed(world)
    until(lambda: _index(world, film).status_code == 201)


def test_a_full_database_keeps_what_it_has(
    world: World, indexed: str, new_film: Callable[[], bytes]
) -> None:
    """SQLSTATE 53100, in the middle of the segments: no half of a video, and room later."""
    film = new_film()
    _sql(
        world.postgres,
        "CREATE OR REPLACE FUNCTION vtag.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.ordinal > 0 THEN RAISE EXCEPTION USING ERRCODE = '53100'; END IF;"
        " RETURN NEW; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON vtag.segments"
        " FOR EACH ROW EXECUTE FUNCTION vtag.full_disk()",
    )
    videos = f"{world.url}/videos"
    before = httpx.get(videos, params={"limit": 200}, timeout=60).json()["data"]
    with under_load(world.url, world.film, world.expect, clients=1) as answers:
        assert _problem(_index(world, film)) == (503, "index_unavailable")
        assert httpx.get(videos, params={"limit": 200}, timeout=60).json()["data"] == before
        assert _found(world, indexed)
    answers.require()
    _sql(world.postgres, "DROP TRIGGER full_disk ON vtag.segments")
    assert _index(world, film).status_code == 201
