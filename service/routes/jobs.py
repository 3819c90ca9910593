"""``/jobs``: work that outlives the request that sent it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.errors import ApiError, members
from service.ids import is_id
from service.index.video_index import IndexUnavailableError
from service.jobs.job import ENDED, STATES, Job, State
from service.jobs.runner import Jobs
from service.jobs.webhook_records import Webhook
from service.routes import event_stream, problems
from service.routes.documents import EVENTS
from service.routes.event_stream import Event, EventStream, wants_events
from service.routes.job_shapes import JobAnswer, JobPage, JobProgress, WebhookAnswer
from service.routes.parts import Parts, Ready
from service.schemas import Name

router = APIRouter(tags=["jobs"])

PREFIX = "job"
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 2  # a hint: progress is written about once a second


@router.get("/jobs", summary="List jobs, newest first")
async def list_jobs(
    parts: Ready,
    status: Annotated[list[State] | None, Query()] = None,
    kind: Annotated[Name | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> JobPage:
    """A page, without results; ``next_cursor`` is null on the last one."""
    if cursor is not None and not is_id(cursor, prefix=PREFIX):
        raise ApiError("invalid_cursor", "The cursor is not one of ours.", param="cursor")
    found = await running_jobs(parts).records.list(
        limit=limit + 1, before=cursor, states=STATES if status is None else status, kind=kind
    )
    page = found[:limit]
    return JobPage(
        data=[job_answer(job, with_result=False) for job in page],
        next_cursor=page[-1].id if len(found) > limit else None,
    )


@router.get("/jobs/{job_id}", summary="One job", response_model=JobAnswer, responses=EVENTS)
async def get_job(
    job_id: str, request: Request, parts: Ready, response: Response
) -> JobAnswer | Response:
    """Its status and progress, then its result or the problem that ended it.

    ``interrupted`` is a job whose service ended under it, or that failed in a way that may pass: it
    goes on where it stopped, in any service that can do it, at ``next_attempt_at`` if one is named.

    With ``Accept: text/event-stream`` an event ``job`` comes whenever it changed, then ``done``.
    """
    job = None
    if is_id(job_id, prefix=PREFIX):
        job = await running_jobs(parts).records.get(job_id)
    if job is None:
        raise _missing()
    if wants_events(request.headers.get("accept", "")):
        return stream(job, request, parts)
    if job.state not in ENDED:
        response.headers["Retry-After"] = str(_POLL_SECONDS)
    return job_answer(job, webhook=await webhook_of(job, parts))


@router.delete("/jobs/{job_id}", summary="Cancel a job")
async def cancel_job(job_id: str, parts: Ready) -> JobAnswer:
    """End it and remove what it works on; it stays in the list as ``cancelled``."""
    jobs = running_jobs(parts)
    job = await jobs.cancel(job_id) if is_id(job_id, prefix=PREFIX) else None
    if job is not None:
        return job_answer(job)
    ended = await jobs.records.get(job_id) if is_id(job_id, prefix=PREFIX) else None
    if ended is None:
        raise _missing()
    if ended.state == "cancelled":
        return job_answer(ended)
    raise ApiError("job_ended", f"The job has {ended.state}.", param="job_id", actual=ended.state)


def stream(job: Job, request: Request, parts: Parts) -> EventStream:
    """Answer with the job as it changes, until it has ended."""
    events = _events(job, parts)

    def problem(error: Exception) -> dict[str, Any]:
        explained = problems.explain(error) or event_stream.unexpected(error)
        where = {"instance": request.url.path, "request_id": str(request.state.request_id)}
        return {**members(explained), **where}

    return EventStream(
        _event(job),
        events,
        held=AsyncExitStack(),
        problem=problem,
        silence_seconds=parts.settings.event_silence_seconds,
        gone=parts.metrics.cancelled.labels("work").inc,
    )


async def _events(job: Job, parts: Parts) -> AsyncGenerator[Event, None]:
    """Events after the first; looks as often as progress is written."""
    records, shown = running_jobs(parts).records, _event(job)
    while shown.name != "done":
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            found = await records.get(job.id)
        except IndexUnavailableError:
            continue  # it comes back, or the client leaves
        if found is None:
            raise _missing()
        event = _event(found)
        if event != shown:
            yield event
        shown = event


def _event(job: Job) -> Event:
    name = "done" if job.state in ENDED else "job"
    return Event(name, job_answer(job).model_dump_json().encode())


def running_jobs(parts: Parts) -> Jobs:
    """Return what runs the jobs.

    Raises:
        ApiError: ``jobs_unavailable``: this service was put together without.
    """
    if parts.jobs is None:
        raise ApiError("jobs_unavailable", "This service keeps no jobs.")
    return parts.jobs


async def webhook_of(job: Job, parts: Parts) -> Webhook | None:
    """Return who is told of the end of a job."""
    return None if parts.webhooks is None else await parts.webhooks.records.get(job.id)


def job_answer(job: Job, *, with_result: bool = True, webhook: Webhook | None = None) -> JobAnswer:
    """A job as clients see it."""
    return JobAnswer(
        id=job.id,
        kind=job.kind,
        status=job.state,
        progress=_progress(job),
        request={name: _short(value) for name, value in job.request.items() if name != "videos"},
        result=job.result if with_result else None,
        error=job.problem,
        priority=job.priority,
        attempts=job.attempts,
        next_attempt_at=job.next_attempt_at if job.state == "interrupted" else None,
        cancel_requested=job.cancel_requested,
        webhook=None if webhook is None else _webhook(webhook),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _webhook(found: Webhook) -> WebhookAnswer:
    return WebhookAnswer(
        id=found.webhook_id,
        url=found.url,
        events=found.events,
        status=found.state,
        attempts=found.attempts,
        last_status=found.last_status,
        last_error=found.last_error,
        next_at=found.next_at if found.state == "pending" else None,
        delivered_at=found.delivered_at,
    )


def _progress(job: Job) -> JobProgress:
    found = job.progress
    if not found:
        return JobProgress(
            fraction=float(job.state == "succeeded"), stage=None, done=0, total=None, eta_s=None
        )
    return JobProgress(
        fraction=round(found["done"] / max(1, found["total"]), 4),
        stage=found["stage"],
        done=found["done"],
        total=found["total"],
        eta_s=found["seconds_left"] if job.state == "running" else None,
    )


def _short(value: object) -> object:
    """Requests may name thousands of classes; a job's answer repeats a few."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 50:
        return [*value[:50], f"… and {len(value) - 50} more"]
    return value


def _missing() -> ApiError:
    return ApiError("job_not_found", "There is no job with this id.", param="job_id")
