"""Runs the jobs of this service, a few at a time; nothing is forgotten when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from service.errors import ApiError, members
from service.index.video_index import IndexUnavailableError
from service.jobs.material import MaterialFolders
from service.jobs.records import ENDED, Job, JobRecords, Json, State
from service.jobs.running import Handler, RunningJob, insist
from service.metrics import Metrics
from service.schemas import WebhookOptions

logger = logging.getLogger("vtag.jobs")

MAX_ATTEMPTS: Final = 3
"""A job whose process died so often under it is given up: it may be what kills it."""

_LOOK_SECONDS: Final = 5.0
_SWEEP_SECONDS: Final = 30.0
_WRITE_SECONDS: Final = 1.0  # progress is written at most so often
_ALIVE_SECONDS: Final = 10.0  # and a sign of life at least so often
_STOP_SECONDS: Final = 8.0
_CANCEL_SECONDS: Final = 10.0

Explain = Callable[[Exception], ApiError | None]


class Jobs:
    """Takes jobs, runs the oldest first, ends them.

    Args:
        records: where they are kept; `start` of the database comes before ours.
        folders: their material; open.
        handlers: kind -> what does it.
        explain: makes a problem of what a handler raised; None: it is not foreseen.
        max_running: jobs that run at once.
        max_waiting: jobs that wait; more are refused.
        history_seconds: how long jobs that ended can be looked at.
        metrics: where they are counted.
    """

    def __init__(
        self,
        records: JobRecords,
        *,
        folders: MaterialFolders,
        handlers: Mapping[str, Handler],
        explain: Explain,
        max_running: int,
        max_waiting: int,
        history_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.records = records
        self.folders = folders
        self._handlers = dict(handlers)
        self._explain = explain
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._history_seconds = history_seconds
        self._metrics = metrics
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, Literal["cancelled", "lost"]] = {}
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._swept = 0.0

    async def start(self) -> None:
        """Mark what a dead process left, and begin to run."""
        await self.records.recover(max_attempts=MAX_ATTEMPTS, problem=_died())
        self.folders.clear(keep=await self.records.unfinished())
        self._loop = asyncio.create_task(self._serve(), name="jobs")

    async def stop(self) -> None:
        """Interrupt what runs; it goes on at the next start. Safe to call twice."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)

    async def check(self) -> None:
        """Refuse now what `submit` would refuse.

        Raises:
            ApiError: ``saturated``.
        """
        waiting = await self.records.waiting()
        if waiting >= self._max_waiting:
            raise self._saturated()

    @asynccontextmanager
    async def material(self, job_id: str) -> AsyncIterator[Path]:
        """Lend the folder of a job that is being sent; removed if it does not come to that."""
        folder = await asyncio.to_thread(self.folders.make, job_id)
        try:
            yield folder
        except BaseException:
            await asyncio.to_thread(self.folders.remove, job_id)
            raise

    async def submit(
        self, job_id: str, *, kind: str, request: Json, webhook: WebhookOptions | None = None
    ) -> Job:
        """Take a job whose material is in its folder; when this returns, no crash loses it.

        Raises:
            ApiError: ``saturated``.
        """
        job = await self.records.add(
            job_id,
            kind=kind,
            request=request,
            max_waiting=self._max_waiting,
            webhook=webhook,
        )
        if job is None:
            raise self._saturated()
        self._wake.set()
        return job

    async def cancel(self, job_id: str) -> Job | None:
        """End a job and return it; None if there is none or it has ended already.

        One that runs in another service ends there within seconds.
        """
        job = await self.records.cancel(job_id)
        if job is None:
            return None
        task = self._running.get(job_id)
        if task is not None:
            self._ends.setdefault(job_id, "cancelled")
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_SECONDS)
        elif job.state == "cancelled":
            self._metrics.jobs_ended.labels(job.kind, job.state).inc()
            await asyncio.to_thread(self.folders.remove, job_id)
        return await self.records.get(job_id)

    async def _serve(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._fill()
                if time.monotonic() - self._swept > _SWEEP_SECONDS:
                    await self.records.sweep(
                        history_seconds=self._history_seconds, problem=_orphaned()
                    )
                    self._swept = time.monotonic()
            except IndexUnavailableError:
                pass  # jobs wait as everything else does
            except Exception:
                logger.exception("looking for jobs failed; trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()

    async def _fill(self) -> None:
        while len(self._running) < self._max_running:
            job = await self.records.claim(list(self._handlers))
            if job is None:
                break
            task = asyncio.create_task(self._attempt(job), name=job.id)
            self._running[job.id] = task
        self._metrics.jobs.labels("running").set(len(self._running))
        self._metrics.jobs.labels("waiting").set(await self.records.waiting())

    async def _attempt(self, job: Job) -> None:
        began = time.monotonic()
        running = RunningJob(job, records=self.records, folder=self.folders.of(job.id))
        watch = asyncio.create_task(self._watch(job, running, asyncio.current_task()))
        state: State = "failed"
        result: Json | None = None
        problem: Json | None = None
        logger.info("job begins", extra={"job": job.id, "kind": job.kind, "attempt": job.attempts})
        try:
            try:
                result = await self._handlers[job.kind].run(running)
                state = "succeeded"
            except asyncio.CancelledError:
                # By `cancel`, or because the service stops: then the next start goes on with it.
                state = "cancelled" if job.id in self._ends else "interrupted"
            except Exception as error:  # noqa: BLE001 - told to whoever asks for the job
                problem = self._problem(job, error)
            watch.cancel()
            if self._ends.get(job.id) != "lost":
                ending = asyncio.create_task(self._end(job, running, state, result, problem))
                while not ending.done():  # what is done is written down, whoever cancels now
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([ending])
        finally:
            watch.cancel()
            self._running.pop(job.id, None)
            self._ends.pop(job.id, None)
            self._metrics.job_seconds.labels(job.kind).observe(time.monotonic() - began)
            self._wake.set()

    async def _end(
        self,
        job: Job,
        running: RunningJob,
        state: State,
        result: Json | None,
        problem: Json | None,
    ) -> None:
        patience = _STOP_SECONDS / 2 if state == "interrupted" else None
        try:
            await insist(
                lambda: self.records.report(job, running.progress), patience_seconds=patience
            )
            await insist(
                lambda: self.records.finish(job, state, result=result, problem=problem),
                patience_seconds=patience,
            )
        except IndexUnavailableError:
            # Written down as running still: after a while it counts as interrupted.
            logger.warning("how a job ended could not be written", extra={"job": job.id})
            return
        self._metrics.jobs_ended.labels(job.kind, state).inc()
        logger.info("job ends", extra={"job": job.id, "kind": job.kind, "state": state})
        if state in ENDED:
            await asyncio.to_thread(self.folders.remove, job.id)

    async def _watch(self, job: Job, running: RunningJob, task: asyncio.Task[None] | None) -> None:
        """Write progress and signs of life; end the task when somebody else says so."""
        written, at = running.progress, time.monotonic()
        while task is not None:
            await asyncio.sleep(_WRITE_SECONDS)
            if running.progress == written and time.monotonic() - at < _ALIVE_SECONDS:
                continue
            progress = running.progress
            try:
                found = await self.records.report(job, progress)
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

    def _saturated(self) -> ApiError:
        return ApiError(
            "saturated",
            f"{self._max_waiting} jobs wait already.",
            limit=self._max_waiting,
            retry_after_seconds=60,
        )


def _died() -> Json:
    return members(
        ApiError(
            "job_interrupted",
            f"The service ended {MAX_ATTEMPTS} times while this job ran; it is not tried again.",
            limit=MAX_ATTEMPTS,
        )
    )


def _orphaned() -> Json:
    return members(
        ApiError(
            "job_interrupted",
            "The service that holds the material of this job did not come back; send it again.",
        )
    )
