"""What services that end without a word leave among the jobs: found, and put right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.index.database import Database
from service.jobs import queue
from service.jobs.job import Json
from service.jobs.records import PLACE

STALE_SECONDS: Final = 60
"""A running job without a sign of life for so long has lost its process."""

_ORPHANED_SECONDS: Final = 24 * 3600
"""A job that waits for a service which has not been seen for so long is given up."""


class JobUpkeep:
    """Keeps jobs, and their places in the queue, in step with what lives.

    All methods raise `IndexUnavailableError` while Postgres does not answer.

    Args:
        database: started.
        owner: names this service.
    """

    def __init__(self, database: Database, *, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def recover(self) -> Sequence[int]:
        """Mark what a dead process of this service was running; return its places in the queue."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "UPDATE jobs SET state = 'interrupted' WHERE runner = $1 AND state = 'running'"
                " RETURNING queue_id",
                self._owner,
            )
        )
        return [row["queue_id"] for row in rows]

    async def requeue(self) -> int:
        """Put back what has not ended and has no place in the queue; return how much that was.

        It has one from its first moment. Only a service that ends while the database comes and goes
        could leave it without.
        """

        async def work(connection: Any) -> int:
            async with connection.transaction():
                rows = await connection.fetch(
                    "SELECT id, kind, priority, CASE WHEN bound THEN owner END AS owner FROM jobs"
                    " WHERE finished_at IS NULL"
                    " AND NOT EXISTS (SELECT FROM pgqueuer WHERE pgqueuer.id = queue_id)"
                    " ORDER BY id FOR UPDATE SKIP LOCKED"
                )
                for job_id, kind, priority, owner in rows:
                    place = await queue.enqueue(
                        connection, job_id, kind=kind, owner=owner, priority=priority
                    )
                    await connection.execute(PLACE, job_id, place)
                return len(rows)

        return await self._database.run(work, plain=True)

    async def touch(self) -> None:
        """Show that the service lives which alone can run what waits here."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE jobs SET heartbeat_at = now() WHERE owner = $1 AND waits", self._owner
            )
        )

    async def sweep(self, *, history_seconds: float, problem: Json) -> Sequence[int]:
        """End or mark what dead services left; forget what is old.

        Returns:
            Places in the queue of jobs that were given up.
        """

        async def work(connection: Any) -> list[int]:
            await connection.execute(
                "UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled'"
                " ELSE 'interrupted' END,"
                " finished_at = CASE WHEN cancel_requested THEN now() END"
                " WHERE state = 'running' AND heartbeat_at < now() - make_interval(secs => $1)",
                float(STALE_SECONDS),
            )
            orphans = await connection.fetch(
                "UPDATE jobs SET state = 'failed', problem = $2, finished_at = now()"
                " WHERE waits AND bound AND coalesce(heartbeat_at, created_at)"
                " < now() - make_interval(secs => $1) RETURNING queue_id",
                float(_ORPHANED_SECONDS),
                problem,
            )
            await connection.execute(
                "DELETE FROM jobs WHERE finished_at < now() - make_interval(secs => $1)",
                history_seconds,
            )
            return [row["queue_id"] for row in orphans]

        return await self._database.run(work)
