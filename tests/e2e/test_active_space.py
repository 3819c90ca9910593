"""The space that a collection is searched in, on a Postgres of somebody else's."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.index.postgres import PostgresIndex
from service.index.space import Space
from tests.e2e.conftest import make_client

Film = Callable[..., bytes]


@pytest.fixture
def client(small_store: Path, postgres: str) -> Iterator[httpx.Client]:
    """A client of a service that keeps everything in a server by DSN."""
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_SEGMENT_SECONDS": "1",
        "VTAG_DATABASE_URL": postgres,
    }
    with make_client(settings) as client:
        yield client


def _space(client: httpx.Client) -> Space:
    shown = client.get("/lambda").json()
    size = len(client.post("/embeddings", json={"input": "a"}).json()["data"][0]["embedding"])
    return Space(shown["model"], shown["revision"], shown["lambda"], size)


def _activate(dsn: str, space: Space | None) -> None:
    async def run() -> None:
        index = PostgresIndex(dsn)
        await index.start()
        try:
            await index.activate(space, collection="default")
        finally:
            await index.close()

    asyncio.run(run())


def _searched(client: httpx.Client) -> tuple[int, str]:
    answer = client.post("/search", json={"query": "a dog"})
    return answer.status_code, answer.json()["index"]["space"]


def test_search_stays_in_the_active_space_until_it_is_switched(
    client: httpx.Client, postgres: str, film: Film
) -> None:
    """Another λ is served and indexed meanwhile; then every answer is of the new space."""
    client.post("/videos", files={"video": film()})
    old = _space(client)
    _activate(postgres, old)
    client.put("/lambda", json={"lambda": 0.6}).raise_for_status()
    assert _searched(client) == (200, old.id)
    assert client.get("/collections/default").json()["active_space"] == old.id
    client.post("/videos", files={"video": film()}, data={"lambda": 0.6}).raise_for_status()
    new = _space(client)
    assert new.id != old.id
    assert _searched(client) == (200, old.id)
    named = client.post("/search", json={"query": "a dog", "lambda": 0.6}).json()
    assert named["index"]["space"] == new.id
    cursors = client.post("/search", json={"query": "a dog", "group_by": "segment", "top_k": 1})
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.append(_searched(client))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    _activate(postgres, new)
    after = _searched(client)
    stop.set()
    for thread in threads:
        thread.join()
    assert after == (200, new.id)
    assert set(seen) <= {(200, old.id), (200, new.id)}
    late = client.post(
        "/search",
        json={
            "query": "a dog",
            "group_by": "segment",
            "top_k": 1,
            "cursor": cursors.json()["next_cursor"],
        },
    )
    assert (late.status_code, late.json()["code"]) == (400, "invalid_cursor")
