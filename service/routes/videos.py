"""``/videos``: index a video in segments, look at what is indexed, remove it."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from service.errors import ApiError
from service.ids import is_id
from service.index.change import VideoChange
from service.index.collection import CollectionMissingError
from service.routes.answers import (
    etag,
    require_model,
    seconds_allowed,
    stored_answer,
)
from service.routes.body import json_body, video_body
from service.routes.client import attended
from service.routes.documents import patch_request, video_request
from service.routes.indexing import index_video_bytes
from service.routes.parts import Parts, Ready
from service.routes.shapes import StoredVideoAnswer, VideoPage
from service.routes.thumbnails import pictured
from service.schemas import MAX_METADATA_KEYS, CollectionName, IndexRequest, Name, VideoPatch

router = APIRouter(tags=["videos"])

_PREFIX = "vid"
_VERSION_DIGITS = 9  # more would not fit the integer that versions are in Postgres
BODY = video_request(
    IndexRequest,
    fields={
        "external_id": {"type": "string"},
        "metadata": {"type": "object"},
        "collection": {"type": "string"},
    },
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
    """Cut the video into windows, embed each, store all of it at once in one collection.

    A collection holds the same bytes once in a space: 200 instead of 201, with new metadata if some
    was sent. They are not cut again; the warning ``already_indexed`` says so if a length was sent.
    Without ``lambda`` it gets the space in which the collection is searched, so that searches find
    it at once; ``lambda`` names another, and searches there find it.
    """
    async with video_body(request, parts, IndexRequest) as (options, video):
        require_model(options.model, parts)
        seconds = seconds_allowed(request, options.timeout_s, parts)
        with parts.admission.enter("video", seconds=seconds):
            stored, is_new, warnings = await attended(
                request,
                index_video_bytes(parts, options, video, deadline=time.monotonic() + seconds),
                seconds=seconds,
            )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/videos/{stored.id}"
    response.headers["ETag"] = etag(stored)
    return (await pictured(parts, [stored_answer(stored, warnings)]))[0]


@router.get("/videos", summary="List indexed videos, newest first")
async def list_videos(
    parts: Ready,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
    external_id: Annotated[Name | None, Query()] = None,
    collection: CollectionName = "default",
) -> VideoPage:
    """A page of a collection; ``next_cursor`` is null on the last one."""
    if cursor is not None and not is_id(cursor, prefix=_PREFIX):
        raise ApiError("invalid_cursor", "The cursor is not one of ours.", param="cursor")
    rows = await parts.index.list(
        limit=limit + 1, before=cursor, external_id=external_id, collection=collection
    )
    if not rows:
        await _require_collection(parts, collection)
    page = rows[:limit]
    return VideoPage(
        data=await pictured(parts, [stored_answer(video) for video in page]),
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
    return (await pictured(parts, [stored_answer(stored)]))[0]


@router.patch(
    "/videos/{video_id}", summary="Change a video", openapi_extra=patch_request(VideoPatch)
)
async def change_video(
    video_id: str,
    request: Request,
    parts: Ready,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> StoredVideoAnswer:
    """Merge ``external_id`` and ``metadata`` into what is there (RFC 7396: null removes).

    With ``If-Match`` only in that version.
    """
    version = _version(video_id, if_match)
    asked = await json_body(request, parts, VideoPatch)
    wanted = VideoChange(
        sets_external_id="external_id" in asked.model_fields_set,
        external_id=asked.external_id,
        metadata=asked.metadata,
        clears_metadata="metadata" in asked.model_fields_set and asked.metadata is None,
        max_keys=MAX_METADATA_KEYS,
    )
    changed = None
    if is_id(video_id, prefix=_PREFIX):
        changed = await parts.index.change(video_id, wanted, version=version)
    if changed is None:
        raise _missing()
    response.headers["ETag"] = etag(changed)
    return (await pictured(parts, [stored_answer(changed)]))[0]


@router.delete("/videos/{video_id}", summary="Remove a video", status_code=204)
async def delete_video(
    video_id: str, parts: Ready, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Remove a video with everything it has; with ``If-Match`` only in that version."""
    version = _version(video_id, if_match)
    known = await parts.index.get(video_id) if is_id(video_id, prefix=_PREFIX) else None
    if known is None or not await parts.index.delete(video_id, version=version):
        raise _missing()
    if parts.media is not None:
        await parts.media.forget(known.sha256)
    return Response(status_code=204)


async def _require_collection(parts: Parts, name: str) -> None:
    """Refuse a collection that is not there.

    Raises:
        CollectionMissingError: with its name.
    """
    if await parts.index.collection(name) is None:
        raise CollectionMissingError(name)


def _version(video_id: str, if_match: str | None) -> int | None:
    """The version that a request is about; None: any."""
    if if_match is None or if_match.strip() == "*":
        return None
    name, _, number = if_match.strip().strip('"').rpartition(".")
    is_version = number.isdecimal() and len(number) <= _VERSION_DIGITS
    if name != video_id or not is_version:
        raise ApiError(
            "precondition_failed", "If-Match names no version of this video.", param="If-Match"
        )
    return int(number)


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _missing() -> ApiError:
    return ApiError("video_not_found", "There is no video with this id.", param="video_id")
