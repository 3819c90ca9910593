"""``/classify/long``: a long video tagged over time, by a job."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from service.asked import segments_of
from service.errors import ApiError
from service.ids import new_id
from service.jobs.long_classification import FILE, KIND
from service.routes.answers import require_model
from service.routes.body import video_body
from service.routes.documents import video_request
from service.routes.job_shapes import JobAnswer
from service.routes.jobs import PREFIX, job_answer, running_jobs, webhook_of
from service.routes.media import kept_video
from service.routes.parts import Parts, Ready
from service.schemas_jobs import LongClassifyRequest

router = APIRouter(tags=["classify"])

BODY = video_request(
    LongClassifyRequest,
    fields={
        "labels": {"type": "array", "items": {"type": "string"}},
        "priority": {"type": "integer"},
        "webhook": {"type": "object"},
    },
    required=["labels"],
)


@router.post(
    "/classify/long",
    summary="Tag a long video over time",
    status_code=202,
    openapi_extra=BODY,
)
async def classify_long(request: Request, response: Response, parts: Ready) -> JobAnswer:
    """Begin a job whose result is the answer of ``POST /classify`` with segments, without its time
    limit.

    The video is uploaded, or the job fetches it from a URL, or it is one of the index that is kept
    (``video_id``). After a crash the job goes on with the segment that it was at. One with an
    uploaded video goes on in the service that has it; others in any that shares the database.
    """
    jobs = running_jobs(parts)
    await jobs.check()
    async with AsyncExitStack() as stack:
        body = video_body(request, parts, LongClassifyRequest, later=True)
        asked, video = await stack.enter_async_context(body)
        where = await _check(asked, parts)
        job_id = new_id(PREFIX)
        if where["source"] == "upload":
            folder = await stack.enter_async_context(jobs.material(job_id))
            # A move: the spool and the material of jobs are below one folder.
            await asyncio.to_thread(video.path.rename, folder / FILE)
            where["sha256"] = video.sha256
        job = await jobs.submit(
            job_id,
            kind=KIND,
            request=asked.model_dump(
                mode="json",
                by_alias=True,
                exclude_none=True,
                exclude={"priority", "webhook", "video"},
            )
            | where,
            webhook=asked.webhook,
            priority=asked.priority,
            bound=where["source"] == "upload",
        )
    response.headers["Location"] = f"/jobs/{job.id}"
    return job_answer(job, webhook=await webhook_of(job, parts))


async def _check(asked: LongClassifyRequest, parts: Parts) -> dict[str, Any]:
    """Refuse now what would fail later, without a look at the video; return where that is.

    Raises:
        ApiError: ``model_not_served``, ``missing_video``, ``url_not_allowed``,
            ``video_not_found``, ``media_not_kept``, ``webhook_not_allowed``.
        OptionError: options contradict each other.
    """
    require_model(asked.model, parts)
    segments_of(asked, default_length=parts.settings.segment_seconds)
    if asked.webhook is not None and parts.webhooks is not None:
        parts.webhooks.check(asked.webhook)
    source = asked.video
    if source is None or source.type not in ("url", "video_id"):
        return {"source": "upload"}
    if source.type == "url":
        if source.url is None:
            raise ApiError("missing_video", "Type url needs url.", param="video.url")
        parts.fetcher.check(source.url, param="video.url")
        return {"source": "url", "where": source.url}
    if source.video_id is None:
        raise ApiError("missing_video", "Type video_id needs video_id.", param="video.video_id")
    stored, _, _ = await kept_video(source.video_id, parts, param="video.video_id")
    return {"source": "video_id", "where": stored.id, "sha256": stored.sha256}
