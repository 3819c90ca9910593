"""Kept answers: one attempt at a time under a key, in memory and in Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from service.idempotency import (
    AnswersInMemory,
    AnswersInPostgres,
    KeptAnswer,
    KeptAnswers,
    answer_key,
)
from service.index.database import Database
from service.index.video_index import IndexUnavailableError

pytestmark = pytest.mark.anyio

_KEY = answer_key("user", "POST", "/videos", "k")
_ANSWER = KeptAnswer(b"f" * 32, 201, (("location", "/videos/1"), ("etag", '"é"')), b'{"id": 1}\0')


@asynccontextmanager
async def _answers(
    kind: str, dsn: str, *, seconds: float = 60.0, lease_seconds: float = 60.0, most: int = 100
) -> AsyncIterator[KeptAnswers]:
    if kind == "memory":
        yield AnswersInMemory(seconds=seconds, lease_seconds=lease_seconds, most=most)
        return
    database = Database(dsn)
    await database.start()
    answers = AnswersInPostgres(database, seconds=seconds, lease_seconds=lease_seconds, most=most)
    try:
        yield answers
    finally:
        await database.close()


@pytest.mark.parametrize("kind", ["memory", "postgres"])
async def test_an_answer_is_found_again_and_a_failure_is_not(kind: str, postgres: str) -> None:
    """Of two at once one works; what was released is free; what was finished comes back whole."""
    async with _answers(kind, postgres) as answers:
        found = await asyncio.gather(*(answers.begin(_KEY, attempt=str(n)) for n in range(5)))
        assert sorted(map(str, found)) == ["busy"] * 4 + ["new"]
        first = str(found.index("new"))
        await answers.release(_KEY, attempt="another")  # not its own
        assert await answers.begin(_KEY, attempt="x") == "busy"
        await answers.release(_KEY, attempt=first)
        assert await answers.begin(_KEY, attempt="y") == "new"
        await answers.finish(_KEY, attempt="another", answer=replace(_ANSWER, body=b"wrong"))
        await answers.finish(_KEY, attempt="y", answer=_ANSWER)
        assert await answers.begin(_KEY, attempt="z") == _ANSWER
        other = answer_key("other", "POST", "/videos", "k")
        assert await answers.begin(other, attempt="z") == "new"


@pytest.mark.parametrize("kind", ["memory", "postgres"])
async def test_what_died_and_what_is_old_makes_room(kind: str, postgres: str) -> None:
    """An attempt whose process is gone is taken over, an answer is forgotten after its time."""
    async with _answers(kind, postgres, lease_seconds=1.0, seconds=4.0) as answers:
        assert await answers.begin(_KEY, attempt="dead") == "new"
        await asyncio.sleep(1.1)
        assert await answers.begin(_KEY, attempt="alive") == "new"
        for _ in range(4):  # it lives for as long as it says so
            await asyncio.sleep(0.3)
            await answers.renew(_KEY, attempt="dead")
            await answers.renew(_KEY, attempt="alive")
        assert await answers.begin(_KEY, attempt="impatient") == "busy"
        await answers.finish(_KEY, attempt="dead", answer=replace(_ANSWER, body=b"too late"))
        await answers.finish(_KEY, attempt="alive", answer=_ANSWER)
        await answers.renew(_KEY, attempt="alive")  # too late: it was answered
        assert await answers.begin(_KEY, attempt="again") == _ANSWER
        await asyncio.sleep(4.1)
        assert await answers.begin(_KEY, attempt="later") == "new"


async def test_there_is_room_for_so_many(postgres: str) -> None:
    """The oldest goes first; Postgres is swept when somebody begins."""
    keys = [answer_key("user", "POST", "/videos", str(number)) for number in range(6)]
    memory = AnswersInMemory(seconds=60, lease_seconds=60, most=3)
    for key in keys:
        await memory.begin(key, attempt="t")
        await memory.finish(key, attempt="t", answer=_ANSWER)
    assert [await memory.begin(key, attempt="u") for key in keys[3:]] == [_ANSWER] * 3
    async with _answers("postgres", postgres) as first:
        for key in keys:
            await first.begin(key, attempt="t")
            await first.finish(key, attempt="t", answer=_ANSWER)
        async with _answers("postgres", postgres, most=3) as second:
            found = [await second.begin(key, attempt="u") for key in reversed(keys)]
    assert found.count(_ANSWER) == 3


async def test_without_postgres_nothing_is_promised(postgres: str) -> None:
    """The error is the index's own, which has its answer."""
    async with _answers("postgres", postgres) as answers:
        pass
    with pytest.raises(IndexUnavailableError):
        await answers.begin(_KEY, attempt="t")


def test_keys_of_different_callers_and_paths_never_meet() -> None:
    """No way to write one part so that it reads as another."""
    parts = [("a", "POST", "/x", "k"), ("a", "POST", "/xk", ""), ("b", "POST", "/x", "k"),
             ("a", "PUT", "/x", "k"), ("aPOST", "", "/x", "k")]  # fmt: skip
    assert len({answer_key(*part) for part in parts}) == len(parts)
