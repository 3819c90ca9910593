"""Webhooks of jobs in Postgres: where they go, how often they were tried, what came of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from service.index.database import Database
from service.jobs.job import Job, job_of

State = Literal["waiting", "pending", "delivered", "dead", "unwanted"]


@dataclass(frozen=True)
class Webhook:
    """One webhook as it stands.

    Attributes:
        job_id: whose end it tells of.
        webhook_id: the same for all tries.
        url: where it goes.
        events: ends that it tells of, such as ``job.succeeded``.
        state: `waiting` for the end; `pending`: to be delivered; `dead`: given up; `unwanted`: the
            job ended in another way.
        attempts: tries so far.
        next_at: when it is tried next.
        last_status: HTTP status of the last answer; None: there was none.
        last_error: why the last try failed, in our words.
        delivered_at: when it was taken.
    """

    job_id: str
    webhook_id: str
    url: str
    events: list[str]
    state: State
    attempts: int
    next_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None


class WebhookRecords:
    """One table. All methods raise `IndexUnavailableError` while Postgres does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> Webhook | None:
        """Return the webhook of a job."""
        row = await self._database.run(
            lambda c: c.fetchrow("SELECT * FROM job_webhooks WHERE job_id = $1", job_id)
        )
        return None if row is None else _webhook(row)

    async def claim(self, *, lease_seconds: float) -> tuple[Webhook, Job] | None:
        """Begin a try of the webhook that is due longest; nobody else does while it lasts."""

        async def work(connection: Any) -> tuple[Webhook, Job] | None:
            async with connection.transaction():
                row = await connection.fetchrow(
                    "UPDATE job_webhooks SET attempts = attempts + 1,"
                    " next_at = now() + make_interval(secs => $1)"
                    " WHERE job_id = (SELECT job_id FROM job_webhooks"
                    "   WHERE state = 'pending' AND next_at <= now()"
                    "   ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *",
                    lease_seconds,
                )
                if row is None:
                    return None
                job = await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", row["job_id"])
            return _webhook(row), job_of(job)

        return await self._database.run(work)

    async def delivered(self, webhook: Webhook, *, status: int) -> None:
        """End it well."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE job_webhooks SET state = 'delivered', last_status = $2, last_error = NULL,"
                " next_at = NULL, delivered_at = now() WHERE job_id = $1",
                webhook.job_id,
                status,
            )
        )

    async def failed(
        self, webhook: Webhook, *, status: int | None, error: str, again_seconds: float | None
    ) -> None:
        """Note a try that failed; `again_seconds` None: it is given up."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE job_webhooks SET last_status = $3, last_error = $4,"
                " state = CASE WHEN $5::float8 IS NULL THEN 'dead' ELSE 'pending' END,"
                " next_at = now() + make_interval(secs => $5)"
                " WHERE job_id = $1 AND attempts = $2 AND state = 'pending'",
                webhook.job_id,
                webhook.attempts,
                status,
                error,
                again_seconds,
            )
        )


def _webhook(row: Any) -> Webhook:
    return Webhook(**{field.name: row[field.name] for field in fields(Webhook)})
