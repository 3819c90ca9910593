"""``/videos/batch``: many videos indexed by one job."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.errors import ApiError
from service.ids import is_id, new_id
from service.index.collection import CollectionMissingError
from service.jobs.index_videos import KIND
from service.routes.answers import require_model
from service.routes.body import json_body
from service.routes.documents import json_request
from service.routes.job_shapes import JobAnswer
from service.routes.jobs import PREFIX, job_answer, running_jobs, webhook_of
from service.routes.parts import Parts, Ready
from service.schemas_jobs import BatchRequest

router = APIRouter(tags=["videos"])


@router.post(
    "/videos/batch",
    summary="Index many videos",
    status_code=202,
    openapi_extra=json_request(BatchRequest),
)
async def index_many(request: Request, response: Response, parts: Ready) -> JobAnswer:
    """Begin a job that indexes videos from URLs, or videos that are kept, one after another.

    Each is treated as by ``POST /videos``. One whose ``external_id`` the collection has already, in
    the space that is searched, is not fetched. The result of the job says of each what became of
    it: ``indexed``, ``duplicate`` with the id of the video that is there, or ``failed`` with the
    problem. After a crash the job goes on with the video that it was at.
    """
    jobs = running_jobs(parts)
    await jobs.check()
    asked = await json_body(request, parts, BatchRequest, max_bytes=parts.settings.max_json_bytes)
    await _check(asked, parts)
    job = await jobs.submit(
        new_id(PREFIX),
        kind=KIND,
        request=asked.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"priority", "webhook"}
        ),
        webhook=asked.webhook,
        priority=asked.priority,
    )
    response.headers["Location"] = f"/jobs/{job.id}"
    return job_answer(job, webhook=await webhook_of(job, parts))


async def _check(asked: BatchRequest, parts: Parts) -> None:
    """Refuse now what would fail later, without a look at the videos.

    Raises:
        ApiError: ``model_not_served``, ``too_many_videos``, ``url_not_allowed``,
            ``video_not_found``, ``webhook_not_allowed``.
        CollectionMissingError: there is no such collection.
    """
    require_model(asked.model, parts)
    most = parts.settings.max_batch_videos
    if len(asked.videos) > most:
        raise ApiError(
            "too_many_videos",
            f"One job indexes {most} videos at most.",
            param="videos",
            limit=most,
            actual=len(asked.videos),
        )
    for number, video in enumerate(asked.videos):
        if video.url is not None:
            parts.fetcher.check(video.url, param=f"videos.{number}.url")
        elif not is_id(video.video_id or "", prefix="vid"):
            raise ApiError(
                "video_not_found",
                "There is no video with this id.",
                param=f"videos.{number}.video_id",
            )
    if asked.webhook is not None and parts.webhooks is not None:
        parts.webhooks.check(asked.webhook)
    if await parts.index.collection(asked.collection) is None:
        raise CollectionMissingError(asked.collection)
