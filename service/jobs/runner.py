"""Takes jobs, has them done by whichever service has room, ends them; nothing is forgotten."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from service.errors import ApiError, members
from service.index.video_index import IndexUnavailableError
from service.jobs.attempts import STOP_SECONDS, Attempts, Explain
from service.jobs.job import ENDED, Job, Json
from service.jobs.material import MaterialFolders
from service.jobs.queue import JobQueue
from service.jobs.records import JobRecords
from service.jobs.running import Handler
from service.jobs.upkeep import JobUpkeep
from service.metrics import Metrics
from service.schemas_jobs import WebhookOptions

logger = logging.getLogger("vtag.jobs")

_SHOW_SECONDS: Final = 5.0
_TOUCH_SECONDS: Final = 30.0
_CANCEL_SECONDS: Final = 10.0
_CANCEL_LOOK_SECONDS: Final = 0.05


class Jobs:
    """Takes jobs, has them done, ends them.

    Args:
        records: where they are kept; `start` of the database comes before ours.
        upkeep: of the same.
        queue: where they wait.
        folders: their material; open.
        handlers: kind -> what does it.
        explain: makes a problem of what a handler raised; None: it is not foreseen.
        max_waiting: jobs that wait; more are refused.
        history_seconds: how long jobs that ended can be looked at.
        retries: of one job, after failures that may pass.
        retry_seconds: wait before the first; each later wait is four times as long.
        metrics: where they are counted.
    """

    def __init__(
        self,
        records: JobRecords,
        *,
        upkeep: JobUpkeep,
        queue: JobQueue,
        folders: MaterialFolders,
        handlers: Mapping[str, Handler],
        explain: Explain,
        max_waiting: int,
        history_seconds: float,
        retries: int,
        retry_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.records = records
        self.upkeep = upkeep
        self.folders = folders
        self._queue = queue
        self._attempts = Attempts(
            records,
            folders=folders,
            handlers=handlers,
            explain=explain,
            retries=retries,
            retry_seconds=retry_seconds,
            metrics=metrics,
        )
        self._max_waiting = max_waiting
        self._history_seconds = history_seconds
        self._metrics = metrics
        self._showing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take back what a dead process of this service held, and begin to run."""
        await self._queue.take_back(await self.upkeep.recover())
        self.folders.clear(keep=await self.records.unfinished())
        self._queue.start(self._attempts.kinds, self._attempts.run, tidy=self._tidy)
        self._showing = asyncio.create_task(self._show(), name="jobs-shown")

    async def stop(self) -> None:
        """Interrupt what runs; it goes on at the next start. Safe to call twice."""
        self._queue.close()
        self._attempts.stop()
        if self._showing is not None:
            self._showing.cancel()
            await asyncio.wait([self._showing])
            self._showing = None
        await self._queue.stop(patience_seconds=STOP_SECONDS)

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
        self,
        job_id: str,
        *,
        kind: str,
        request: Json,
        webhook: WebhookOptions | None = None,
        priority: int = 0,
        bound: bool = False,
    ) -> Job:
        """Take a job; when this returns, no crash loses it.

        Args:
            priority: larger ones are begun first.
            bound: what it works on is in its folder here; no other service can do it.

        Raises:
            ApiError: ``saturated``.
        """
        job = await self.records.add(
            job_id,
            kind=kind,
            request=request,
            max_waiting=self._max_waiting,
            webhook=webhook,
            priority=priority,
            bound=bound,
        )
        if job is None:
            raise self._saturated()
        return job

    async def cancel(self, job_id: str) -> Job | None:
        """End a job and return it; None if there is none or it has ended already.

        One that runs in another service ends there within seconds.
        """
        job = await self.records.cancel(job_id)
        if job is None:
            return None
        if job.state == "cancelled":
            await self._queue.withdraw([job.queue_id])
            self._metrics.jobs_ended.labels(job.kind, job.state).inc()
            await asyncio.to_thread(self.folders.remove, job_id)
            return job
        if not self._attempts.cancel(job_id):
            await self._queue.tell(job.queue_id)
            return job
        end = time.monotonic() + _CANCEL_SECONDS
        while True:
            found = await self.records.get(job_id)
            if found is None or found.state in ENDED or time.monotonic() > end:
                return found
            await asyncio.sleep(_CANCEL_LOOK_SECONDS)

    async def _tidy(self) -> None:
        orphans = await self.upkeep.sweep(
            history_seconds=self._history_seconds, problem=_orphaned()
        )
        await self._queue.withdraw(orphans)
        if lost := await self.upkeep.requeue():
            logger.warning("jobs had lost their place in the queue", extra={"jobs": lost})
        await self._queue.forget(seconds=self._history_seconds)

    async def _show(self) -> None:
        """Show how many jobs wait here, and that this service lives."""
        touched = 0.0
        while True:
            try:
                self._metrics.jobs.labels("waiting").set(await self.records.waiting())
                self._metrics.job_age_seconds.set(await self.records.age_seconds())
                if time.monotonic() - touched > _TOUCH_SECONDS:
                    await self.upkeep.touch()
                    touched = time.monotonic()
            except IndexUnavailableError:
                pass  # jobs wait as everything else does
            except Exception:
                logger.exception("looking for jobs failed; trying again")
            await asyncio.sleep(_SHOW_SECONDS)

    def _saturated(self) -> ApiError:
        return ApiError(
            "saturated",
            f"{self._max_waiting} jobs wait already.",
            limit=self._max_waiting,
            retry_after_seconds=60,
        )


def _orphaned() -> Json:
    return members(
        ApiError(
            "job_interrupted",
            "The service that holds the material of this job did not come back; send it again.",
        )
    )
