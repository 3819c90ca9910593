"""Several services on one real Postgres: who gets which job, when, and who takes over."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.index.database import Database
from service.index.embedded import EmbeddedPostgres
from service.jobs.job import Job
from tests.service.jobs.test_runner import Steps, running, send, until

pytestmark = pytest.mark.anyio


def _ended(job: Job) -> bool:
    return job.state == "succeeded"


async def _execute(dsn: str, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def _count(dsn: str, table: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM vtag.{table}"))  # noqa: S608
    finally:
        await connection.close()


async def test_the_largest_priority_comes_first(postgres: str, tmp_path: Path) -> None:
    """Among equals the oldest; nothing is left in the queue at the end."""
    handler = Steps()
    async with running(postgres, tmp_path, handler, max_waiting=9) as jobs:
        first = await send(jobs)
        await until(jobs, first.id, lambda job: job.state == "running")
        low, middle, high, other = [
            await send(jobs, priority=priority) for priority in (-5, 0, 7, 7)
        ]
        handler.go_on.set()
        for job in (low, middle, high, other):
            assert (await until(jobs, job.id, _ended)).priority == job.priority
        assert handler.began == [each.id for each in (first, high, other, middle, low)]
        async with asyncio.timeout(10):
            while await _count(postgres, "pgqueuer"):
                await asyncio.sleep(0.05)


async def test_as_many_run_at_once_as_are_wanted(postgres: str, tmp_path: Path) -> None:
    """Two begin, the third waits until one of them has ended."""
    handler = Steps()
    async with running(postgres, tmp_path, handler, at_once=2) as jobs:
        sent = [await send(jobs) for _ in range(3)]
        for job in sent[:2]:
            await until(jobs, job.id, lambda job: job.progress.get("done") == 1)
        third = await jobs.records.get(sent[2].id)
        assert third is not None
        assert third.state == "queued"
        handler.go_on.set()
        for job in sent:
            await until(jobs, job.id, _ended)
        assert sorted(handler.began) == sorted(job.id for job in sent)


async def test_the_oldest_job_that_is_due_has_an_age(postgres: str, tmp_path: Path) -> None:
    """What runs has none, nor has what is tried again later."""
    handler = Steps()
    older = "UPDATE vtag.jobs SET created_at = now() - interval '90 s', next_attempt_at = $2"
    async with running(postgres, tmp_path, handler, max_waiting=9) as jobs:
        first = await send(jobs)
        await until(jobs, first.id, lambda job: job.state == "running")
        assert await jobs.records.age_seconds() == 0
        second = await send(jobs)
        assert await jobs.records.age_seconds() < 60
        await _execute(postgres, f"{older} WHERE id = $1", second.id, None)
        assert 90 <= await jobs.records.age_seconds() < 180
        later = datetime.now(UTC) + timedelta(hours=1)
        await _execute(postgres, f"{older} WHERE id = $1", second.id, later)
        assert await jobs.records.age_seconds() == 0
        handler.go_on.set()


@pytest.mark.slow
async def test_what_may_pass_is_tried_again(postgres: str, tmp_path: Path) -> None:
    """With longer and longer waits, that can be seen; then it is a failure as any other."""
    handler = Steps()
    handler.go_on.set()
    async with running(postgres, tmp_path, handler) as jobs:
        passes = await send(jobs, fails=2)
        done = await until(jobs, passes.id, _ended)
        assert (done.attempts, done.retries, done.problem) == (3, 2, None)
        stays = await send(jobs, fails=9)
        failed = await until(jobs, stays.id, lambda job: job.state == "failed")
        assert failed.problem is not None
        assert (failed.problem["code"], failed.attempts) == ("encoder_unavailable", 3)
        assert not jobs.folders.of(stays.id).exists()
    async with running(postgres, tmp_path, handler, retry_seconds=3600.0) as jobs:
        waits = await send(jobs, fails=1)
        seen = await until(jobs, waits.id, lambda job: job.state == "interrupted")
        assert seen.problem is not None
        assert (seen.problem["code"], seen.attempts) == ("encoder_unavailable", 1)
        assert seen.next_attempt_at is not None
        assert (seen.next_attempt_at - seen.created_at).total_seconds() > 300
        cancelled = await jobs.cancel(waits.id)
        assert cancelled is not None
        assert (cancelled.state, cancelled.problem) == ("cancelled", None)


async def test_two_services_share_the_work_and_do_nothing_twice(
    postgres: str, tmp_path: Path
) -> None:
    """Each job is begun once, by either; those that need files of one are done by it alone."""
    handlers = Steps(), Steps()
    for handler in handlers:
        handler.go_on.set()
    async with (
        running(postgres, tmp_path / "a", handlers[0], max_waiting=99) as one,
        running(postgres, tmp_path / "b", handlers[1]),
    ):
        sent = [await send(one, bound=number % 4 == 0) for number in range(24)]
        for job in sent:
            await until(one, job.id, _ended)
    began = [job_id for handler in handlers for job_id in handler.began]
    assert sorted(began) == [job.id for job in sent]
    assert {job.id for job in sent[::4]} <= set(handlers[0].began)
    assert handlers[1].began


async def test_the_job_of_a_dead_service_is_taken_over(postgres: str, tmp_path: Path) -> None:
    """By another once the lease is over, where it stopped; not one that needs files of the dead."""
    dead, alive = Steps(), Steps()
    alive.go_on.set()
    async with running(postgres, tmp_path / "a", dead) as one:
        free = await send(one, bound=False)
        await until(one, free.id, lambda job: job.progress.get("done") == 1)
        await one.stop()
        bound = await send(one, bound=True)
    # What kill -9 leaves behind: nobody said that it ended.
    for job in (free, bound):
        died = "UPDATE vtag.jobs SET state = 'running', attempts = 1, runner = 'dead' WHERE id = $1"
        await _execute(postgres, died, job.id)
    await _execute(
        postgres,
        "UPDATE vtag.pgqueuer SET status = 'picked', heartbeat = now(),"
        " queue_manager_id = gen_random_uuid()",
    )
    async with running(postgres, tmp_path / "b", alive, lease_seconds=1.0) as other:
        taken = await until(other, free.id, _ended)
        assert (taken.attempts, taken.retries) == (2, 0)
        assert (dead.pieces, alive.pieces) == (["0"], ["1"])
        left = await other.records.get(bound.id)
        assert left is not None
        assert left.state == "running"
        assert alive.began == [free.id]


async def test_an_attempt_that_was_taken_over_ends_without_a_trace(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was silent too long finds its job elsewhere, and leaves it alone."""
    monkeypatch.setattr("service.jobs.attempts._WRITE_SECONDS", 0.05)
    monkeypatch.setattr("service.jobs.attempts._ALIVE_SECONDS", 0.1)
    slow, other = Steps(), Steps()
    async with running(postgres, tmp_path / "a", slow) as one:
        job = await send(one, bound=False)
        await until(one, job.id, lambda job: job.progress.get("done") == 1)
        async with running(postgres, tmp_path / "b", other) as two:
            stale = "UPDATE vtag.pgqueuer SET heartbeat = now() - make_interval(mins => 1)"
            await _execute(postgres, stale)
            await until(two, job.id, lambda job: job.attempts == 2)
            async with asyncio.timeout(20):
                while one._attempts._running:
                    await asyncio.sleep(0.02)
            assert await _count(postgres, "pgqueuer") == 1
            other.go_on.set()
            assert (await until(two, job.id, _ended)).attempts == 2
    assert (slow.pieces, other.pieces) == (["0"], ["1"])


async def test_a_job_without_a_place_in_the_queue_gets_one(postgres: str, tmp_path: Path) -> None:
    """Whatever took it away; those that have one, or have ended, get no other."""
    handler = Steps()
    async with running(postgres, tmp_path, handler, max_waiting=9) as jobs:
        first = await send(jobs)
        await until(jobs, first.id, lambda job: job.state == "running")
        lost, waiting = await send(jobs), await send(jobs)
        await _execute(postgres, "DELETE FROM vtag.pgqueuer WHERE id = $1", lost.queue_id)
        assert await jobs.upkeep.requeue() == 1
        assert await jobs.upkeep.requeue() == 0
        handler.go_on.set()
        for job in (first, lost, waiting):
            await until(jobs, job.id, _ended)
        assert await jobs.upkeep.requeue() == 0


@pytest.mark.slow
async def test_jobs_bear_a_database_that_is_restarted(tmp_path: Path) -> None:
    """One that runs goes on, one that waits is done, and notifications are heard again."""
    server = EmbeddedPostgres(tmp_path / "cluster")
    await server.start()
    handler = Steps()
    try:
        async with running(server.dsn, tmp_path, handler) as jobs:
            first, second = await send(jobs), await send(jobs)
            await until(jobs, first.id, lambda job: job.progress.get("done") == 1)
            await server.stop()
            handler.go_on.set()
            await server.start()
            for job in (first, second):
                assert (await until(jobs, job.id, _ended)).attempts == 1
            assert handler.began == [first.id, second.id]
    finally:
        await server.stop()


async def test_a_database_without_the_queue_gets_its_jobs_into_it(
    postgres: str, tmp_path: Path
) -> None:
    """What an older version left waiting or running is done by its owner after the upgrade."""
    handler = Steps()
    handler.go_on.set()
    async with running(postgres, tmp_path, handler) as jobs:
        await jobs.stop()
        sent = [await send(jobs) for _ in range(2)]
    before = Path(__file__).with_name("before_the_queue.sql").read_text()
    await _execute(postgres, before)
    await _execute(
        postgres, "UPDATE vtag.jobs SET state = 'running', attempts = 1 WHERE id = $1", sent[1].id
    )
    async with running(postgres, tmp_path, handler) as jobs:
        done = [await until(jobs, job.id, _ended) for job in sent]
        assert [job.attempts for job in done] == [1, 2]


async def test_the_tables_of_the_library_are_those_it_declares(postgres: str) -> None:
    """A fresh database needs no upgrade, and one that lacks a column gets it back."""
    database = Database(postgres)
    await database.start()
    await database.close()
    await _execute(postgres, "ALTER TABLE vtag.pgqueuer DROP COLUMN headers")
    await database.start()
    try:
        columns = (
            "SELECT count(*) FROM information_schema.columns"
            " WHERE table_schema = 'vtag' AND table_name = 'pgqueuer' AND column_name = 'headers'"
        )
        assert await database.run(partial(_value, columns)) == 1
    finally:
        await database.close()


async def _value(statement: str, connection: Any) -> Any:
    return await connection.fetchval(statement)
