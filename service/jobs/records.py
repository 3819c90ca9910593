"""Jobs in Postgres: what was asked, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

from service.ids import new_id
from service.index.database import Database
from service.schemas import WebhookOptions

State = Literal["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]
Json = dict[str, Any]

STATES: Final[tuple[State, ...]] = (
    "queued",
    "running",
    "interrupted",
    "succeeded",
    "failed",
    "cancelled",
)
ENDED: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled"})
STALE_SECONDS: Final = 60
"""A running job without a sign of life for so long has lost its process."""

_ORPHANED_SECONDS: Final = 24 * 3600
"""A job that waits for a service which has not been seen for so long is given up."""


@dataclass(frozen=True)
class Job:
    """One job as it stands.

    Attributes:
        id: `job_` and a ULID.
        kind: what it does; names its handler.
        state: `interrupted` is a job whose process ended; it goes on where it stopped.
        request: what was asked, of the kind's own shape.
        progress: `stage`, `done`, `total` and `seconds_left`; empty before the first report.
        result: of the kind's own shape; None unless it succeeded.
        problem: `code`, `title`, `status`, `detail` …; None unless it failed.
        attempts: how often it was begun; more than 1: it was interrupted.
        cancel_requested: somebody wants it to end.
    """

    id: str
    kind: str
    state: State
    request: Json
    progress: Json
    result: Json | None
    problem: Json | None
    attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobRecords:
    """The two tables. All methods raise `IndexUnavailableError` while Postgres does not answer.

    Args:
        database: started.
        owner: names the service on whose disk the material of its jobs lies.
    """

    def __init__(self, database: Database, *, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def add(
        self,
        job_id: str,
        *,
        kind: str,
        request: Json,
        max_waiting: int,
        webhook: WebhookOptions | None = None,
    ) -> Job | None:
        """Write a new job that waits; None if as many of this service wait already.

        With it, in the same statement, whom to tell when it has ended.
        """
        row = await self._database.run(
            lambda c: c.fetchrow(
                "WITH job AS (INSERT INTO jobs (id, kind, state, owner, request)"
                " SELECT $1, $2, 'queued', $3, $4"
                " WHERE (SELECT count(*) FROM jobs WHERE owner = $3 AND waits) < $5"
                # the second try of one call
                " ON CONFLICT (id) DO UPDATE SET kind = excluded.kind RETURNING *),"
                " hook AS (INSERT INTO job_webhooks (job_id, webhook_id, url, events)"
                " SELECT id, $6, $7, $8 FROM job WHERE $7::text IS NOT NULL"
                " ON CONFLICT DO NOTHING) SELECT * FROM job",
                job_id,
                kind,
                self._owner,
                request,
                max_waiting,
                new_id("msg"),
                None if webhook is None else webhook.url,
                None if webhook is None else list(webhook.events),
            )
        )
        return None if row is None else job_of(row)

    async def waiting(self) -> int:
        """Return how many jobs of this service wait."""
        found = await self._database.run(
            lambda c: c.fetchval(
                "SELECT count(*) FROM jobs WHERE owner = $1 AND waits", self._owner
            )
        )
        return int(found)

    async def claim(self, kinds: Sequence[str]) -> Job | None:
        """Begin the oldest job of this service that waits and is of one of `kinds`."""
        return await self._row(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, heartbeat_at = now(),"
            " started_at = coalesce(started_at, now())"
            " WHERE id = (SELECT id FROM jobs WHERE owner = $1 AND waits AND kind = ANY($2::text[])"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
            self._owner,
            list(kinds),
        )

    async def report(self, job: Job, progress: Json) -> Job | None:
        """Write progress and a sign of life; None if this attempt is not the running one."""
        return await self._row(
            "UPDATE jobs SET progress = $3, heartbeat_at = now()"
            " WHERE id = $1 AND state = 'running' AND attempts = $2",
            job.id,
            job.attempts,
            progress,
        )

    async def finish(
        self, job: Job, state: State, *, result: Json | None = None, problem: Json | None = None
    ) -> Job | None:
        """End this attempt; a job that ended keeps no pieces. None if it is not the running one."""

        async def work(connection: Any) -> Any:
            async with connection.transaction():
                row = await connection.fetchrow(
                    "UPDATE jobs SET state = $3, result = $4, problem = $5,"
                    " finished_at = CASE WHEN $6 THEN now() END,"
                    # An orderly stop is not the job's fault: it does not count as an attempt.
                    " attempts = CASE WHEN $6 THEN attempts ELSE attempts - 1 END"
                    " WHERE id = $1 AND state = 'running' AND attempts = $2 RETURNING *",
                    job.id,
                    job.attempts,
                    state,
                    result,
                    problem,
                    state in ENDED,
                )
                if row is not None and state in ENDED:
                    await connection.execute("DELETE FROM job_pieces WHERE job_id = $1", job.id)
                return row

        row = await self._database.run(work)
        return None if row is None else job_of(row)

    async def cancel(self, job_id: str) -> Job | None:
        """End a job that waits; ask one that runs to end. None if there is none that could."""
        return await self._row(
            "UPDATE jobs SET cancel_requested = true,"
            " finished_at = CASE WHEN waits THEN now() END,"
            " state = CASE WHEN waits THEN 'cancelled' ELSE state END"
            " WHERE id = $1 AND (waits OR state = 'running')",
            job_id,
        )

    async def recover(self, *, max_attempts: int, problem: Json) -> None:
        """Mark what a dead process of this service left running; give up what died too often."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled'"
                " WHEN attempts >= $2 THEN 'failed' ELSE 'interrupted' END,"
                " problem = CASE WHEN attempts >= $2 AND NOT cancel_requested THEN $3::jsonb END,"
                " finished_at = CASE WHEN cancel_requested OR attempts >= $2 THEN now() END"
                " WHERE owner = $1 AND state = 'running'",
                self._owner,
                max_attempts,
                problem,
            )
        )

    async def sweep(self, *, history_seconds: float, problem: Json) -> None:
        """Show that this service lives; end or mark what others left; forget what is old."""

        async def work(connection: Any) -> None:
            await connection.execute(
                "UPDATE jobs SET heartbeat_at = now() WHERE owner = $1 AND waits", self._owner
            )
            await connection.execute(
                "UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled'"
                " ELSE 'interrupted' END,"
                " finished_at = CASE WHEN cancel_requested THEN now() END"
                " WHERE state = 'running' AND heartbeat_at < now() - make_interval(secs => $1)",
                float(STALE_SECONDS),
            )
            await connection.execute(
                "UPDATE jobs SET state = 'failed', problem = $2, finished_at = now()"
                " WHERE waits AND coalesce(heartbeat_at, created_at)"
                " < now() - make_interval(secs => $1)",
                float(_ORPHANED_SECONDS),
                problem,
            )
            await connection.execute(
                "DELETE FROM jobs WHERE finished_at < now() - make_interval(secs => $1)",
                history_seconds,
            )

        await self._database.run(work)

    async def get(self, job_id: str) -> Job | None:
        """Return one job, of whichever service."""
        row = await self._database.run(
            lambda c: c.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id)
        )
        return None if row is None else job_of(row)

    async def list(
        self, *, limit: int, before: str | None, states: Sequence[State], kind: str | None
    ) -> Sequence[Job]:
        """Return jobs in one of `states`, newest first, older than the id `before`."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT * FROM jobs WHERE ($1::text IS NULL OR id < $1)"
                " AND state = ANY($2::text[]) AND ($3::text IS NULL OR kind = $3)"
                " ORDER BY id DESC LIMIT $4",
                before,
                list(states),
                kind,
                limit,
            )
        )
        return [job_of(row) for row in rows]

    async def unfinished(self) -> set[str]:
        """Return the ids of this service's jobs that have not ended."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT id FROM jobs WHERE owner = $1 AND finished_at IS NULL", self._owner
            )
        )
        return {row["id"] for row in rows}

    async def save(self, job: Job, name: str, content: Json) -> None:
        """Keep a finished piece of a job for its next attempt."""
        await self._database.run(
            lambda c: c.execute(
                "INSERT INTO job_pieces (job_id, name, content) VALUES ($1, $2, $3)"
                " ON CONFLICT (job_id, name) DO UPDATE SET content = excluded.content",
                job.id,
                name,
                content,
            )
        )

    async def pieces(self, job: Job) -> Mapping[str, Json]:
        """Return what earlier attempts kept."""
        rows = await self._database.run(
            lambda c: c.fetch("SELECT name, content FROM job_pieces WHERE job_id = $1", job.id)
        )
        return {row["name"]: row["content"] for row in rows}

    async def _row(self, statement: str, *values: object) -> Job | None:
        row = await self._database.run(lambda c: c.fetchrow(f"{statement} RETURNING *", *values))
        return None if row is None else job_of(row)


def job_of(row: Any) -> Job:
    """Return the job that a row of the table is."""
    return Job(**{field.name: row[field.name] for field in fields(Job)})
