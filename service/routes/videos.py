"""``/videos``: index a video in segments, look at what is indexed, remove it."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from service.errors import ApiError
from service.ids import is_id
from service.index.video_index import NewSegment, NewVideo, StoredVideo
from service.routes.answers import (
    etag,
    index_space,
    require_model,
    seconds_allowed,
    stored_answer,
)
from service.routes.body import video_body
from service.routes.client import attended
from service.routes.documents import video_request
from service.routes.parts import Parts, Ready
from service.routes.shapes import StoredVideoAnswer, VideoPage
from service.schemas import IndexRequest, Name
from service.spool import SpoolFile
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["videos"])

_PREFIX = "vid"
_VERSION_DIGITS = 9  # more would not fit the integer that versions are in Postgres
BODY = video_request(
    IndexRequest,
    fields={"external_id": {"type": "string"}, "metadata": {"type": "object"}},
    required=[],
)


@router.post(
    "/videos",
    summary="Index a video",
    status_code=201,
    openapi_extra=BODY,
    responses={200: {"description": "It was indexed already.", "model": StoredVideoAnswer}},
)
async def index_video(request: Request, response: Response, parts: Ready) -> StoredVideoAnswer:
    """Cut the video into windows, embed each, store all of it at once.

    The same bytes are indexed once: 200 instead of 201, with new metadata if some was sent. They
    are not cut again; the warning ``already_indexed`` says so if a length was sent.
    """
    async with video_body(request, parts, IndexRequest) as (options, video):
        require_model(options.model, parts)
        seconds = seconds_allowed(options.timeout_s, parts)
        with parts.admission.enter("video"):
            stored, is_new, warnings = await attended(
                request,
                _index(parts, options, video, deadline=time.monotonic() + seconds),
                seconds=seconds,
            )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/videos/{stored.id}"
    response.headers["ETag"] = etag(stored)
    return stored_answer(stored, warnings)


async def _index(
    parts: Parts, options: IndexRequest, video: SpoolFile, *, deadline: float
) -> tuple[StoredVideo, bool, tuple[VideoWarning, ...]]:
    served = parts.tagger.space
    if options.clip_weight is not None and round(options.clip_weight, 4) != served.clip_weight:
        raise ApiError(
            "lambda_not_resident",
            f"lambda {options.clip_weight:g} is not being served; {served.clip_weight:g} is.",
            param="lambda",
            limit=served.clip_weight,
            actual=options.clip_weight,
        )
    known = await parts.index.find(video.sha256)
    if known is not None and served.id in known.spaces:
        changed = await parts.index.update(
            known.id, external_id=options.external_id, metadata=options.metadata
        )
        if changed is not None:
            return changed, False, _not_cut_again(options)
    cut = await parts.tagger.embed_segments(
        video.path,
        segment_seconds=options.segments.length or parts.settings.segment_seconds,
        deadline=deadline,
    )
    facts = NewVideo(
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        external_id=options.external_id,
        metadata=options.metadata,
        duration_seconds=cut.info.duration_seconds,
        fps=cut.info.fps,
        width=cut.info.width,
        height=cut.info.height,
        codec=cut.info.codec,
    )
    stored, is_new = await parts.index.add(
        facts,
        space=index_space(cut.space, parts),
        segments=[NewSegment(part.start, part.end, part.vector) for part in cut.segments],
    )
    return stored, is_new, cut.warnings


def _not_cut_again(options: IndexRequest) -> tuple[VideoWarning, ...]:
    if options.segments.length is None:
        return ()
    detail = (
        "The video was indexed before and keeps its segments; segments.length had no effect."
        " Delete the video first to cut it anew."
    )
    return (VideoWarning("already_indexed", detail),)


@router.get("/videos", summary="List indexed videos, newest first")
async def list_videos(
    parts: Ready,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
    external_id: Annotated[Name | None, Query()] = None,
) -> VideoPage:
    """A page; ``next_cursor`` is null on the last one."""
    if cursor is not None and not is_id(cursor, prefix=_PREFIX):
        raise ApiError("invalid_cursor", "The cursor is not one of ours.", param="cursor")
    rows = await parts.index.list(limit=limit + 1, before=cursor, external_id=external_id)
    page = rows[:limit]
    return VideoPage(
        data=[stored_answer(video) for video in page],
        next_cursor=page[-1].id if len(rows) > limit else None,
    )


@router.get("/videos/{video_id}", summary="One indexed video", response_model=StoredVideoAnswer)
async def get_video(
    video_id: str,
    parts: Ready,
    response: Response,
    if_none_match: Annotated[str | None, Header()] = None,
) -> StoredVideoAnswer | Response:
    """Its facts, spaces and number of segments; 304 when the client's copy is current."""
    stored = await parts.index.get(video_id) if is_id(video_id, prefix=_PREFIX) else None
    if stored is None:
        raise _missing()
    current = etag(stored)
    if if_none_match is not None and current in _tags(if_none_match):
        return Response(status_code=304, headers={"ETag": current})
    response.headers["ETag"] = current
    return stored_answer(stored)


@router.delete("/videos/{video_id}", summary="Remove a video", status_code=204)
async def delete_video(
    video_id: str, parts: Ready, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Remove a video with everything it has; with ``If-Match`` only in that version."""
    version = None
    if if_match is not None and if_match.strip() != "*":
        name, _, number = if_match.strip().strip('"').rpartition(".")
        is_version = number.isdecimal() and len(number) <= _VERSION_DIGITS
        if name != video_id or not is_version:
            raise ApiError(
                "precondition_failed", "If-Match names no version of this video.", param="If-Match"
            )
        version = int(number)
    there = is_id(video_id, prefix=_PREFIX) and await parts.index.delete(video_id, version=version)
    if not there:
        raise _missing()
    return Response(status_code=204)


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _missing() -> ApiError:
    return ApiError("video_not_found", "There is no video with this id.", param="video_id")
