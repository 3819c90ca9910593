"""A job while it runs: what its handler sees of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from service.index.video_index import IndexUnavailableError
from service.jobs.job import Job, Json
from service.jobs.records import JobRecords

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 120.0
"""How long a job bears a database that is away before it gives up this attempt."""


class RunningJob:
    """One attempt of a job.

    Attributes:
        id: of the job.
        request: what was asked.
        folder: its material; the job may write there too.
        progress: as it was last reported.
        created_at: by the clock of the database.
        is_resumed: an earlier attempt may have ended in the middle of something.
    """

    def __init__(self, job: Job, *, records: JobRecords, folder: Path) -> None:
        self.id = job.id
        self.request = job.request
        self.folder = folder
        self.progress: Json = dict(job.progress)
        self.created_at = job.created_at
        # An attempt that was interrupted by a stop is not counted, but it was one.
        self.is_resumed = job.attempts > 1 or job.heartbeat_at != job.started_at
        self._job = job
        self._records = records
        self._began: tuple[float, int] | None = None

    def report(self, stage: str, *, done: int, total: int) -> None:
        """Tell how far the job is, in units of equal work; written down by and by."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
        since, before = self._began
        left = None
        if done > before:
            left = round((now - since) / (done - before) * (total - done), 1)
        self.progress = {"stage": stage, "done": done, "total": total, "seconds_left": left}

    async def pieces(self) -> Mapping[str, Json]:
        """Return the finished pieces that earlier attempts kept."""
        return await insist(lambda: self._records.pieces(self._job))

    async def save(self, name: str, content: Json) -> None:
        """Keep a finished piece; when this returns, no crash loses it."""
        await insist(lambda: self._records.save(self._job, name, content))


class Handler(Protocol):
    """What does the jobs of one kind."""

    async def run(self, job: RunningJob) -> dict[str, Any]:
        """Do it and return the result.

        It may be called again for the same job after an interruption. What it raises is the
        problem of the job, if the table of problems knows it.
        """
        ...


async def insist(work: Callable[[], Awaitable[T]], *, patience_seconds: float | None = None) -> T:
    """Do `work` again while the database is away, with longer and longer pauses.

    Raises:
        IndexUnavailableError: it did not come back within the patience.
    """
    end = time.monotonic() + (_PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
    pause = 0.5
    while True:
        try:
            return await work()
        except IndexUnavailableError:
            if time.monotonic() + pause > end:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 10.0)
