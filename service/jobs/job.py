"""A job as it stands, as everybody may see it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

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


@dataclass(frozen=True)
class Job:
    """One job as it stands.

    Attributes:
        id: `job_` and a ULID.
        kind: what it does; names its handler.
        state: `interrupted` is a job whose attempt ended before its time: its process ended, or
            something failed that may pass. It goes on where it stopped.
        request: what was asked, of the kind's own shape.
        progress: `stage`, `done`, `total` and `seconds_left`; empty before the first report.
        result: of the kind's own shape; None unless it succeeded.
        problem: `code`, `title`, `status`, `detail` …, of a job that failed, or of the attempt
            after which one that was interrupted waits; else None.
        attempts: how often it was begun; more than 1: it was interrupted.
        retries: how many of them ended by a failure that may pass.
        priority: of jobs that wait those with the largest are begun first.
        cancel_requested: somebody wants it to end.
        queue_id: its place in the queue.
        started_at: when its first attempt began.
        heartbeat_at: last sign of life of an attempt.
        next_attempt_at: when a failure is given the next chance; None: as soon as can be.
    """

    id: str
    kind: str
    state: State
    request: Json
    progress: Json
    result: Json | None
    problem: Json | None
    attempts: int
    retries: int
    priority: int
    cancel_requested: bool
    queue_id: int
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None


def job_of(row: Any) -> Job:
    """Return the job that a row of the table is."""
    return Job(**{field.name: row[field.name] for field in fields(Job)})
