"""Where jobs wait: pgqueuer over our database, which hands each to one service at a time.

What a service holds it must keep touching; what it did not touch for a while is handed to another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.core.qm import QueueManager
from pgqueuer.core.sm import SchedulerManager
from pgqueuer.domain.models import Context, Job, Schedule
from pgqueuer.domain.types import JobId

from service.index.database import Database
from service.index.queue_schema import SETTINGS, queries
from service.jobs.queue_driver import QueueDriver

logger = logging.getLogger("vtag.jobs")

LEASE_SECONDS: Final = 20.0
"""A job whose service was silent for so long is handed to another; it is touched twice as often."""

_LOOK_SECONDS: Final = 2.0  # where a notification was missed
_LOOK_AGAIN_SECONDS: Final = 1.0  # while jobs wait that may not begin: others run
_AGAIN_SECONDS: Final = 1.0
_MINUTELY: Final = "* * * * *"

Run = Callable[[Job, Context], Awaitable[None]]


async def enqueue(
    connection: Any, job_id: str, *, kind: str, owner: str | None, priority: int
) -> int:
    """Put a job into the queue, in the transaction of `connection`; return its place there.

    Args:
        connection: plain, of `Database.run`.
        job_id: of the job.
        kind: of the job.
        owner: the service that alone can run it; None: any can.
        priority: larger ones are handed out first, equal ones in the order that they came.
    """
    found = await queries(AsyncpgDriver(connection)).enqueue(
        _line(kind, owner), job_id.encode(), priority
    )
    return found[0]


class JobQueue:
    """Hands jobs to this service, as many at once as it wants.

    Args:
        database: started.
        owner: the name of this service.
        at_once: most jobs that it holds.
        lease_seconds: see `LEASE_SECONDS`.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        at_once: int,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._owner = owner
        self._at_once = at_once
        self._lease = timedelta(seconds=lease_seconds)
        self._driver = QueueDriver(database)
        self._queries = queries(self._driver)
        self._manager = _Manager(self._queries, channel=SETTINGS.channel)
        self._manager.at_once = at_once
        self._manager.min_dequeue_poll_interval = timedelta(seconds=_LOOK_AGAIN_SECONDS)
        self._scheduler = SchedulerManager(self._queries)
        self._loops: list[asyncio.Task[None]] = []

    def start(self, kinds: Sequence[str], run: Run, *, tidy: Callable[[], Awaitable[None]]) -> None:
        """Begin to hand out jobs.

        Args:
            kinds: of jobs that this service can do.
            run: does one. When it returns, the job leaves the queue; `RetryRequested` puts it back;
                an error that is no `Exception` leaves it to whoever holds it by then.
            tidy: called once a minute, by one service of all that share the database.
        """
        for kind in kinds:
            for owner in (None, self._owner):
                self._manager.entrypoint(_line(kind, owner), accepts_context=True)(run)

        async def tidy_up(_: Schedule) -> None:
            await tidy()

        self._scheduler.schedule("tidy", _MINUTELY, accepts_context=False)(tidy_up)
        self._loops = [
            asyncio.create_task(_keep_on(self._hand_out, "jobs"), name="jobs"),
            asyncio.create_task(_keep_on(self._scheduler.run, "tidying"), name="job-schedules"),
        ]

    def close(self) -> None:
        """Hand out nothing more; what runs goes on."""
        self._manager.shutdown.set()
        self._scheduler.shutdown.set()

    async def stop(self, *, patience_seconds: float) -> None:
        """Return when all that was handed out has ended, or its time is up. Safe to call twice."""
        self.close()
        loops, self._loops = self._loops, []
        if loops:
            await asyncio.wait(loops, timeout=patience_seconds)
        self._driver.give_up()
        for loop in loops:
            loop.cancel()
        if loops:
            await asyncio.wait(loops)
        await self._driver.close()

    async def withdraw(self, queue_ids: Sequence[int]) -> None:
        """Take jobs out that nobody runs."""
        if queue_ids:
            await self._queries.mark_job_as_cancelled([JobId(each) for each in queue_ids])

    async def tell(self, queue_id: int) -> None:
        """Tell whoever runs a job that somebody wants it to end."""
        await self._queries.notify_job_cancellation([JobId(queue_id)])

    async def take_back(self, queue_ids: Sequence[int]) -> None:
        """Free what a dead process of this service held, before its time is up."""
        for queue_id in queue_ids:
            found = await self._queries.queue_job_by_id(JobId(queue_id))
            if found is not None and found.status == "picked":
                await self._queries.retry_job(found, timedelta(0), None)

    async def forget(self, *, seconds: float) -> None:
        """Remove what the library wrote down about jobs of long ago."""
        await self._driver.execute(
            f"DELETE FROM {SETTINGS.qualified.queue_table_log}"  # noqa: S608 - a name of ours
            " WHERE created < now() - make_interval(secs => $1)",
            seconds,
        )

    async def _hand_out(self) -> None:
        await self._manager.run(
            dequeue_timeout=timedelta(seconds=_LOOK_SECONDS),
            batch_size=1,
            max_concurrent_tasks=max(2, self._at_once),
            heartbeat_timeout=self._lease,
            log_aggregation_interval=timedelta(0),  # nobody reads its statistics
        )


class _Manager(QueueManager):
    """The library's own loop; `run` insists on room for two jobs, and here one may be enough."""

    at_once = 1

    async def fetch_jobs(
        self,
        batch_size: int,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> AsyncGenerator[Job, None]:
        limit = min(self.at_once, global_concurrency_limit or self.at_once)
        async for job in super().fetch_jobs(batch_size, limit, heartbeat_timeout):
            yield job


def _line(kind: str, owner: str | None) -> str:
    """Return in which line of the queue jobs wait: one for all services, one for each of them."""
    return kind if owner is None else f"{kind}@{owner}"


async def _keep_on(run: Callable[[], Awaitable[None]], what: str) -> None:
    """Run a loop of the library until it ends by itself."""
    while True:
        try:
            await run()
        except Exception:
            logger.exception("the loop of %s failed; it begins anew", what)
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return
