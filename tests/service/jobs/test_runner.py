"""Jobs in a real Postgres: in order, bounded, interrupted, taken up again, ended by others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.errors import ApiError
from service.ids import new_id
from service.index.database import Database
from service.index.video_index import IndexUnavailableError
from service.jobs import attempts
from service.jobs.attempts import MAX_ATTEMPTS
from service.jobs.job import STATES, Job
from service.jobs.material import MaterialFolders
from service.jobs.queue import JobQueue
from service.jobs.records import JobRecords
from service.jobs.runner import Jobs
from service.jobs.running import RunningJob, insist
from service.jobs.upkeep import STALE_SECONDS, JobUpkeep
from service.metrics import Metrics

pytestmark = pytest.mark.anyio


class Steps:
    """A handler that does one piece after another when it is let."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.pieces: list[str] = []
        self.go_on = asyncio.Event()

    async def run(self, job: RunningJob) -> dict[str, Any]:
        """Keep piece 0, wait, keep piece 1; fail if asked to."""
        self.began.append(job.id)
        if job.request.get("fails", 0) >= self.began.count(job.id):
            raise ApiError("encoder_unavailable", "Away.")
        if "error" in job.request:
            raise {"known": ApiError("no_decodable_video", "None."), "unknown": RuntimeError("0x")}[
                job.request["error"]
            ]
        there = await job.pieces()
        for number in range(2):
            if str(number) not in there:
                self.pieces.append(str(number))
                await job.save(str(number), {"kept": number})
            job.report("stepping", done=number + 1, total=2)
            if number == 0:
                await self.go_on.wait()
        return {"pieces": sorted((await job.pieces()).keys())}


@asynccontextmanager
async def running(
    dsn: str,
    folder: Path,
    handler: Steps,
    *,
    at_once: int = 1,
    lease_seconds: float = 20.0,
    **options: Any,
) -> AsyncIterator[Jobs]:
    """Jobs on a real database."""
    database = Database(dsn)
    await database.start()
    folders = MaterialFolders(folder / "jobs")
    owner = folders.open()
    jobs = Jobs(
        JobRecords(database, owner=owner),
        upkeep=JobUpkeep(database, owner=owner),
        queue=JobQueue(database, owner=owner, at_once=at_once, lease_seconds=lease_seconds),
        folders=folders,
        handlers={"step": handler},
        explain=lambda error: error if isinstance(error, ApiError) else None,
        **{
            "max_waiting": 3,
            "history_seconds": 1000.0,
            "retries": 2,
            "retry_seconds": 0.01,
            **options,
        },
        metrics=Metrics(),
    )
    try:
        await jobs.start()
        yield jobs
    finally:
        await jobs.stop()
        await database.close()


async def send(jobs: Jobs, *, bound: bool = True, priority: int = 0, **request: Any) -> Job:
    """A job with a folder."""
    job_id = new_id("job")
    async with jobs.material(job_id):
        return await jobs.submit(
            job_id, kind="step", request=request, bound=bound, priority=priority
        )


async def until(jobs: Jobs, job_id: str, fits: Callable[[Job], bool]) -> Job:
    """The job once it fits."""
    async with asyncio.timeout(30):
        while True:
            job = await jobs.records.get(job_id)
            assert job is not None
            if fits(job):
                return job
            await asyncio.sleep(0.05)


async def test_jobs_run_in_order_and_leave_their_result_only(postgres: str, tmp_path: Path) -> None:
    """One at a time, oldest first; afterwards neither pieces nor material are there."""
    handler = Steps()
    async with running(postgres, tmp_path, handler) as jobs:
        sent = [await send(jobs, number=n) for n in range(3)]
        first = await until(jobs, sent[0].id, lambda job: job.progress.get("done") == 1)
        assert (first.state, first.attempts) == ("running", 1)
        assert [(await jobs.records.get(job.id)).state for job in sent[1:]] == ["queued"] * 2  # type: ignore[union-attr]
        handler.go_on.set()
        for job in sent:
            ended = await until(jobs, job.id, lambda job: job.state == "succeeded")
            assert ended.result == {"pieces": ["0", "1"]}
            assert await jobs.records.pieces(ended) == {}
            assert ended.finished_at is not None
        assert handler.began == [job.id for job in sent]
        async with asyncio.timeout(30):
            while any(jobs.folders.of(job.id).exists() for job in sent):
                await asyncio.sleep(0.02)


async def test_what_a_handler_raises_is_the_problem_of_the_job(
    postgres: str, tmp_path: Path
) -> None:
    """A foreseen error with its code; any other as ours, without its words."""
    async with running(postgres, tmp_path, Steps()) as jobs:
        for error, code in (("known", "no_decodable_video"), ("unknown", "internal_error")):
            job = await send(jobs, error=error)
            ended = await until(jobs, job.id, lambda job: job.state == "failed")
            assert ended.problem is not None
            assert ended.problem["code"] == code
            assert "0x" not in str(ended.problem)


async def test_too_many_waiting_are_refused_and_leave_no_folder(
    postgres: str, tmp_path: Path
) -> None:
    """With 503 and a time to come back."""
    async with running(postgres, tmp_path, Steps(), max_waiting=1) as jobs:
        first = await send(jobs)
        await until(jobs, first.id, lambda job: job.state == "running")
        await send(jobs)
        with pytest.raises(ApiError) as caught:
            await send(jobs)
        assert (caught.value.code, caught.value.limit) == ("saturated", 1)
        with pytest.raises(ApiError):
            await jobs.check()
        folders = [path for path in jobs.folders.root.iterdir() if path.is_dir()]
        assert len(folders) == 2


async def test_a_stop_interrupts_and_the_next_start_takes_up_what_is_left(
    postgres: str, tmp_path: Path
) -> None:
    """Finished pieces are not done again."""
    handler = Steps()
    async with running(postgres, tmp_path, handler) as jobs:
        job = await send(jobs)
        await until(jobs, job.id, lambda job: job.progress.get("done") == 1)
        await jobs.stop()
        found = await jobs.records.get(job.id)
        assert found is not None
        assert (found.state, found.attempts) == ("interrupted", 0)
    handler.go_on.set()
    async with running(postgres, tmp_path, handler) as jobs:
        ended = await until(jobs, job.id, lambda job: job.state == "succeeded")
    assert handler.pieces == ["0", "1"]
    assert ended.attempts == 1


async def _execute(statement: str, job_id: str, number: int, connection: Any) -> None:
    await connection.execute(statement, job_id, number)


def _is(state: str, job: Job) -> bool:
    return job.state == state


async def test_a_job_under_which_the_service_dies_again_and_again_is_given_up(
    postgres: str, tmp_path: Path
) -> None:
    """Three deaths are enough: it may be what kills the service."""
    database = Database(postgres)
    await database.start()
    handler = Steps()
    try:
        async with running(postgres, tmp_path, handler) as jobs:
            job = await send(jobs)
            await until(jobs, job.id, lambda job: job.state == "running")
        died = "UPDATE jobs SET state = 'running', attempts = $2 WHERE id = $1"
        for attempt in range(1, MAX_ATTEMPTS + 1):
            await database.run(partial(_execute, died, job.id, attempt))
            async with running(postgres, tmp_path, handler) as jobs:
                wanted = "running" if attempt < MAX_ATTEMPTS else "failed"
                found = await until(jobs, job.id, partial(_is, wanted))
        assert found.problem is not None
        assert found.problem["code"] == "job_interrupted"
        assert not jobs.folders.of(job.id).exists()
    finally:
        await database.close()


async def test_cancelling_ends_what_waits_and_what_runs(postgres: str, tmp_path: Path) -> None:
    """At once in this service; one that ended cannot be cancelled."""
    handler = Steps()
    async with running(postgres, tmp_path, handler) as jobs:
        first, second = await send(jobs), await send(jobs)
        await until(jobs, first.id, lambda job: job.state == "running")
        for job in (second, first):
            ended = await jobs.cancel(job.id)
            assert ended is not None
            assert ended.state == "cancelled"
            assert await jobs.cancel(job.id) is None
        assert handler.began == [first.id]


async def test_another_service_can_end_a_job_and_sees_when_its_owner_died(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation reaches the owner through the database; silence makes a job interrupted."""
    monkeypatch.setattr(attempts, "_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(attempts, "_ALIVE_SECONDS", 0.1)
    async with (
        running(postgres, tmp_path / "a", Steps()) as one,
        running(postgres, tmp_path / "b", Steps()) as other,
    ):
        job = await send(one)
        await until(one, job.id, lambda job: job.state == "running")
        asked = await other.cancel(job.id)
        assert asked is not None
        assert asked.cancel_requested
        await until(other, job.id, lambda job: job.state == "cancelled")
        silent = await send(one)
        await until(one, silent.id, lambda job: job.state == "running")
        await one.stop()
        late = (
            "UPDATE jobs SET state = 'running', attempts = 1,"
            " heartbeat_at = now() - make_interval(secs => $2) WHERE id = $1"
        )
        database = Database(postgres)
        await database.start()
        await database.run(lambda c: c.execute(late, silent.id, STALE_SECONDS + 1.0))
        await other.upkeep.sweep(history_seconds=1000, problem={})
        found = await other.records.get(silent.id)
        assert found is not None
        assert found.state == "interrupted"
        await other.upkeep.sweep(history_seconds=0, problem={})
        assert await other.records.get(job.id) is None  # forgotten
        await database.run(
            lambda c: c.execute(
                "UPDATE jobs SET heartbeat_at = now() - make_interval(days => 2) WHERE id = $1",
                silent.id,
            )
        )
        await other.upkeep.sweep(history_seconds=1000, problem={"code": "job_interrupted"})
        [orphan] = await other.records.list(limit=9, before=None, states=STATES, kind="step")
        assert (orphan.state, orphan.problem) == ("failed", {"code": "job_interrupted"})
        await database.close()


async def test_a_database_that_is_away_for_a_while_ends_no_job() -> None:
    """The call is made again until it succeeds or the patience is over."""
    calls = 0

    async def work() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise IndexUnavailableError
        return "there"

    assert await insist(work) == "there"
    calls = -10
    with pytest.raises(IndexUnavailableError):
        await insist(work, patience_seconds=0.6)


def test_material_has_an_owner_that_stays(tmp_path: Path) -> None:
    """The name survives a restart; folders that no job needs go, others and files stay."""
    folders = MaterialFolders(tmp_path / "jobs")
    owner = folders.open()
    assert len(owner) == 16
    assert MaterialFolders(tmp_path / "jobs").open() == owner
    for name in ("job_a", "job_b"):
        (folders.make(name) / "inner").mkdir()
    folders.clear(keep={"job_b"})
    assert sorted(path.name for path in folders.root.iterdir()) == ["job_b", "owner"]
    folders.remove("job_b")
    folders.remove("job_b")
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o700
