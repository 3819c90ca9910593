"""Shapes of answers about jobs; times of day are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class JobProgress(_Answer):
    """How far a job is, in units of about equal work."""

    fraction: float
    stage: str | None
    done: int
    total: int | None
    eta_s: float | None = Field(description="seconds left, as far as this attempt can tell")


class WebhookAnswer(_Answer):
    """Who is told of the end of a job, and what came of it."""

    id: str = Field(description="the webhook-id of all tries")
    url: str
    events: list[str]
    status: Literal["waiting", "pending", "delivered", "dead", "unwanted"]
    attempts: int
    last_status: int | None = Field(description="what the receiver answered last")
    last_error: str | None
    next_at: datetime | None
    delivered_at: datetime | None


class JobAnswer(_Answer):
    """One job."""

    id: str
    kind: str
    status: Literal["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]
    progress: JobProgress
    request: dict[str, Any] = Field(description="what was asked, without the list of videos")
    result: dict[str, Any] | None = Field(description="of a job that succeeded; not in lists")
    error: dict[str, Any] | None = Field(
        description="the problem of a job that failed, or that is tried again after a failure"
    )
    priority: int = Field(description="of jobs that wait those with the largest are begun first")
    attempts: int = Field(description="more than 1: it was interrupted and went on")
    next_attempt_at: datetime | None = Field(
        description="when a job is tried again that failed in a way that may pass"
    )
    cancel_requested: bool
    webhook: WebhookAnswer | None = Field(default=None, description="not in lists")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(_Answer):
    """A page of the list of jobs."""

    data: list[JobAnswer]
    next_cursor: str | None
