"""Jobs in Postgres: what was asked, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from service.ids import new_id
from service.index.database import Database
from service.jobs import queue
from service.jobs.job import Job, Json, State, job_of
from service.schemas_jobs import WebhookOptions

PLACE: Final = "UPDATE jobs SET queue_id = $2 WHERE id = $1"
"""Notes the place of a job in the queue."""


class JobRecords:
    """Our two tables. All methods raise `IndexUnavailableError` while Postgres does not answer.

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
        priority: int = 0,
        bound: bool = False,
    ) -> Job | None:
        """Write a new job that waits; None if as many of this service wait already.

        With it, in the same transaction, its place in the queue and whom to tell when it has ended.

        Args:
            bound: its material lies on the disk of this service; no other can run it.
        """

        async def work(connection: Any) -> bool:
            async with connection.transaction():
                made = await connection.fetchval(
                    "INSERT INTO jobs (id, kind, state, owner, request, priority, bound)"
                    " SELECT $1, $2, 'queued', $3, $4, $6, $7"
                    " WHERE (SELECT count(*) FROM jobs WHERE owner = $3 AND waits) < $5"
                    " ON CONFLICT (id) DO NOTHING RETURNING true",
                    job_id,
                    kind,
                    self._owner,
                    orjson.dumps(request).decode(),
                    max_waiting,
                    priority,
                    bound,
                )
                if not made:  # if it is there, this is the second try of one call
                    there = "SELECT EXISTS (SELECT FROM jobs WHERE id = $1)"
                    return bool(await connection.fetchval(there, job_id))
                owner = self._owner if bound else None
                place = await queue.enqueue(
                    connection, job_id, kind=kind, owner=owner, priority=priority
                )
                await connection.execute(PLACE, job_id, place)
                if webhook is not None:
                    await connection.execute(
                        "INSERT INTO job_webhooks (job_id, webhook_id, url, events)"
                        " VALUES ($1, $2, $3, $4)",
                        job_id,
                        new_id("msg"),
                        webhook.url,
                        list(webhook.events),
                    )
                return True

        return await self.get(job_id) if await self._database.run(work, plain=True) else None

    async def waiting(self) -> int:
        """Return how many jobs of this service wait."""
        found = await self._database.run(
            lambda c: c.fetchval(
                "SELECT count(*) FROM jobs WHERE owner = $1 AND waits", self._owner
            )
        )
        return int(found)

    async def age_seconds(self) -> float:
        """Return how long the oldest job that is due has waited; 0 without one.

        Of those that this service can run: its own, and all that are not bound to another.
        """
        found = await self._database.run(
            lambda c: c.fetchval(
                "SELECT extract(epoch FROM now() - min(coalesce(next_attempt_at, created_at)))"
                " FROM jobs WHERE (owner = $1 OR NOT bound) AND waits",
                self._owner,
            )
        )
        return max(0.0, float(found or 0.0))

    async def begin(self, job_id: str) -> Job | None:
        """Begin an attempt here of a job that the queue handed out; None if it has ended.

        From then on an attempt that runs elsewhere is no more: its reports find nothing.
        """
        return await self._row(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, heartbeat_at = now(),"
            " started_at = coalesce(started_at, now()), next_attempt_at = NULL, problem = NULL,"
            " runner = $2 WHERE id = $1 AND finished_at IS NULL",
            job_id,
            self._owner,
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
        """End a job; nothing is kept for another attempt. None if this is not the running one."""

        async def work(connection: Any) -> Any:
            async with connection.transaction():
                row = await connection.fetchrow(
                    "UPDATE jobs SET state = $3, result = $4, problem = $5, finished_at = now()"
                    " WHERE id = $1 AND state = 'running' AND attempts = $2 RETURNING *",
                    job.id,
                    job.attempts,
                    state,
                    result,
                    problem,
                )
                if row is not None:
                    await connection.execute("DELETE FROM job_pieces WHERE job_id = $1", job.id)
                return row

        row = await self._database.run(work)
        return None if row is None else job_of(row)

    async def interrupt(
        self, job: Job, *, problem: Json | None = None, again_seconds: float | None = None
    ) -> Job | None:
        """End this attempt; another follows. None if it is not the running one.

        Args:
            problem: what failed; None: the service stops, which is not the job's fault and does not
                count as an attempt.
            again_seconds: until the next attempt.
        """
        return await self._row(
            "UPDATE jobs SET state = 'interrupted', problem = $3,"
            " attempts = attempts - CASE WHEN $3::jsonb IS NULL THEN 1 ELSE 0 END,"
            " retries = retries + CASE WHEN $3::jsonb IS NULL THEN 0 ELSE 1 END,"
            " next_attempt_at = now() + make_interval(secs => $4)"
            " WHERE id = $1 AND state = 'running' AND attempts = $2",
            job.id,
            job.attempts,
            problem,
            again_seconds,
        )

    async def cancel(self, job_id: str) -> Job | None:
        """End a job that waits; ask one that runs to end. None if there is none that could."""
        return await self._row(
            "UPDATE jobs SET cancel_requested = true,"
            " finished_at = CASE WHEN waits THEN now() END, problem = NULL,"
            " state = CASE WHEN waits THEN 'cancelled' ELSE state END"
            " WHERE id = $1 AND (waits OR state = 'running')",
            job_id,
        )

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
        """Return the ids of all jobs that have not ended, of whichever service."""
        rows = await self._database.run(
            lambda c: c.fetch("SELECT id FROM jobs WHERE finished_at IS NULL")
        )
        return {row["id"] for row in rows}

    async def save(self, job: Job, name: str, content: Json) -> None:
        """Keep a finished piece for the next attempt; nothing of an attempt that is over."""
        await self._database.run(
            lambda c: c.execute(
                "INSERT INTO job_pieces (job_id, name, content) SELECT id, $3, $4 FROM jobs"
                " WHERE id = $1 AND state = 'running' AND attempts = $2"
                " ON CONFLICT (job_id, name) DO UPDATE SET content = excluded.content",
                job.id,
                job.attempts,
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
