"""Attempts of jobs that the queue handed to this service: begun, watched, ended, written down."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, Literal

from pgqueuer.domain import models
from pgqueuer.domain.errors import RetryRequested

from service.errors import PROBLEMS, ApiError, members
from service.index.video_index import IndexUnavailableError
from service.jobs.job import Job, Json, State
from service.jobs.material import MaterialFolders
from service.jobs.records import JobRecords
from service.jobs.running import Handler, RunningJob, insist
from service.metrics import Metrics

logger = logging.getLogger("vtag.jobs")

MAX_ATTEMPTS: Final = 3
"""A job whose process died so often under it is given up: it may be what kills it."""

STOP_SECONDS: Final = 8.0

_WRITE_SECONDS: Final = 1.0  # progress is written at most so often
_ALIVE_SECONDS: Final = 10.0  # and a sign of life at least so often
_GROWTH: Final = 4.0
_MOST_SECONDS: Final = 600.0
_SPREAD: Final = 0.2

Explain = Callable[[Exception], ApiError | None]


class AttemptLostError(BaseException):
    """Another service has the job, or will have it: nothing may be done to its place in the queue.

    No `Exception`: the queue would take the job out for one.
    """


class Attempts:
    """Does what the queue hands out.

    Args:
        records: where jobs are written down.
        folders: their material; open.
        handlers: kind -> what does it.
        explain: makes a problem of what a handler raised; None: it is not foreseen.
        retries: of one job, after failures that may pass.
        retry_seconds: wait before the first; each later wait is four times as long.
        metrics: where they are counted.
    """

    def __init__(
        self,
        records: JobRecords,
        *,
        folders: MaterialFolders,
        handlers: Mapping[str, Handler],
        explain: Explain,
        retries: int,
        retry_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._folders = folders
        self._handlers = dict(handlers)
        self._explain = explain
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._metrics = metrics
        self._metrics.jobs.labels("running").set(0)
        self._running: dict[str, asyncio.Task[Json]] = {}
        self._ends: dict[str, Literal["cancelled", "lost"]] = {}
        self._stopping = False

    @property
    def kinds(self) -> list[str]:
        """Kinds of jobs that can be done."""
        return list(self._handlers)

    def stop(self) -> None:
        """Interrupt all of them, and those that are still handed out."""
        self._stopping = True
        for task in self._running.values():
            task.cancel()

    def cancel(self, job_id: str) -> bool:
        """End a job if it runs here; tell whether it does."""
        task = self._running.get(job_id)
        if task is None:
            return False
        self._ends.setdefault(job_id, "cancelled")
        task.cancel()
        return True

    async def run(self, queued: models.Job, context: models.Context) -> None:
        """Make one attempt of a job; when this returns it has ended.

        Raises:
            RetryRequested: it is to be handed out again.
            AttemptLostError: it was handed to another service meanwhile, or this one has no time
                left to say how it ended.
        """
        if self._stopping:
            raise RetryRequested
        try:
            await self._run(queued, context)
        except asyncio.CancelledError:
            # The service ends. The queue would take the job out, as if somebody had cancelled it.
            raise AttemptLostError from None

    async def _run(self, queued: models.Job, context: models.Context) -> None:
        job_id = (queued.payload or b"").decode()
        job = await insist(lambda: self._records.begin(job_id), patience_seconds=float("inf"))
        if job is None:  # it has ended; whoever ended it died before it left the queue
            await asyncio.to_thread(self._folders.remove, job_id)
            return
        began = time.monotonic()
        self._metrics.jobs.labels("running").inc()
        try:
            await self._attempt(job, context)
        finally:
            self._metrics.jobs.labels("running").dec()
            self._metrics.job_seconds.labels(job.kind).observe(time.monotonic() - began)

    async def _attempt(self, job: Job, context: models.Context) -> None:
        logger.info("job begins", extra={"job": job.id, "kind": job.kind, "attempt": job.attempts})
        running = RunningJob(job, records=self._records, folder=self._folders.of(job.id))
        if job.cancel_requested:
            await self._end(job, running, "cancelled")
            return
        if job.attempts - job.retries > MAX_ATTEMPTS:
            await self._end(job, running, "failed", problem=_died())
            return
        task = asyncio.create_task(self._handlers[job.kind].run(running), name=job.id)
        self._running[job.id] = task
        watch = asyncio.create_task(self._watch(job, running, context, task))
        try:
            if self._stopping:
                task.cancel()
            await asyncio.wait([task])
        finally:
            watch.cancel()
            task.cancel()
            self._running.pop(job.id, None)
            ended = self._ends.pop(job.id, None)
        if ended == "lost":
            raise AttemptLostError
        if task.cancelled():
            if ended is None:
                await self._interrupt(job, running)
            else:
                await self._end(job, running, "cancelled")
            return
        error = task.exception()
        if error is None:
            await self._end(job, running, "succeeded", result=task.result())
        elif isinstance(error, Exception):
            await self._fail(job, running, error)
        else:
            raise error

    async def _fail(self, job: Job, running: RunningJob, error: Exception) -> None:
        problem = self._problem(job, error)
        if not _may_pass(problem) or job.retries >= self._retries:
            await self._end(job, running, "failed", problem=problem)
            return
        wait = min(_MOST_SECONDS, self._retry_seconds * _GROWTH**job.retries)
        wait *= random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - jitter
        await self._write(job, running)
        interrupted = await insist(
            lambda: self._records.interrupt(job, problem=problem, again_seconds=wait),
            patience_seconds=float("inf"),
        )
        self._left(job, "interrupted", interrupted)
        logger.warning(
            "job failed; it is tried again",
            extra={"job": job.id, "kind": job.kind, "code": problem["code"], "seconds": wait},
        )
        raise RetryRequested(timedelta(seconds=wait), problem["code"])

    async def _interrupt(self, job: Job, running: RunningJob) -> None:
        try:
            await insist(
                lambda: self._records.report(job, running.progress),
                patience_seconds=STOP_SECONDS / 2,
            )
            interrupted = await insist(
                lambda: self._records.interrupt(job), patience_seconds=STOP_SECONDS / 2
            )
        except IndexUnavailableError:
            # Written down as running still: the next start, or another service, takes it up.
            logger.warning("that a job was interrupted could not be written", extra={"job": job.id})
            raise AttemptLostError from None
        self._left(job, "interrupted", interrupted)
        raise RetryRequested

    async def _end(
        self,
        job: Job,
        running: RunningJob,
        state: State,
        *,
        result: Json | None = None,
        problem: Json | None = None,
    ) -> None:
        await self._write(job, running)
        ended = await insist(
            lambda: self._records.finish(job, state, result=result, problem=problem),
            patience_seconds=float("inf"),
        )
        self._left(job, state, ended)
        await asyncio.to_thread(self._folders.remove, job.id)

    async def _write(self, job: Job, running: RunningJob) -> None:
        await insist(
            lambda: self._records.report(job, running.progress), patience_seconds=float("inf")
        )

    def _left(self, job: Job, state: State, written: Job | None) -> None:
        """Count how an attempt ended; it counts for nothing if it was not the running one."""
        if written is None:
            raise AttemptLostError
        self._metrics.jobs_ended.labels(job.kind, state).inc()
        logger.info("job ends", extra={"job": job.id, "kind": job.kind, "state": state})

    async def _watch(
        self, job: Job, running: RunningJob, context: models.Context, task: asyncio.Task[Json]
    ) -> None:
        """Write progress and signs of life; end the task when somebody else says so."""
        written, at = running.progress, time.monotonic()
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            told = context.cancellation.cancel_called
            is_quiet = running.progress == written and time.monotonic() - at < _ALIVE_SECONDS
            if is_quiet and not told:
                continue
            progress = running.progress
            try:
                found = await self._records.report(job, progress)
            except IndexUnavailableError:
                continue
            written, at = progress, time.monotonic()
            if found is None or found.cancel_requested:
                self._ends.setdefault(job.id, "lost" if found is None else "cancelled")
                task.cancel()
                return

    def _problem(self, job: Job, error: Exception) -> Json:
        explained = self._explain(error)
        if explained is None or explained.code == "internal_error":
            logger.error("job failed", extra={"job": job.id}, exc_info=error)
        if explained is None:
            explained = ApiError("internal_error", "The service failed; the logs say why.")
        return members(explained)


def _may_pass(problem: Json) -> bool:
    """Whether what failed may succeed later. `job_interrupted`: the job must be sent anew."""
    code = problem["code"]
    return PROBLEMS[code].retryable and code != "job_interrupted"


def _died() -> Json:
    return members(
        ApiError(
            "job_interrupted",
            f"The service ended {MAX_ATTEMPTS} times while this job ran; it is not tried again.",
            limit=MAX_ATTEMPTS,
        )
    )
