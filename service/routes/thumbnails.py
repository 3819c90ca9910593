"""``/videos/{id}/thumbnail`` and ``/preview``: small pictures, made when they are asked for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response

from service.decode.pool import DecodePool
from service.decode.stills import PictureWish, ask_picture
from service.errors import ApiError
from service.routes.answers import seconds_allowed
from service.routes.client import attended
from service.routes.media import kept_video, names
from service.routes.parts import Parts, Ready
from service.routes.shapes import HitAnswer, Moment, StoredVideoAnswer

router = APIRouter(tags=["videos"])

A = TypeVar("A", HitAnswer, StoredVideoAnswer)

_VERSION: Final = "1"  # of how pictures look: a change makes them anew
_PICTURE: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A picture.", "content": {"image/*": _PICTURE}},
    304: {"description": "The client has it."},
}

Second = Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False)]
Width = Annotated[int, Query(ge=16, le=1920)]


@router.get(
    "/videos/{video_id}/thumbnail",
    summary="One picture of a video",
    response_class=Response,
    responses=_ANSWERS,
)
async def get_thumbnail(
    video_id: str,
    request: Request,
    parts: Ready,
    t: Second | None = None,
    width: Width = 320,
    format: Literal["jpeg", "webp"] = "jpeg",  # noqa: A002 - the name of the option
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """What is on screen at ``t`` seconds; without ``t`` in the middle. Never enlarged."""
    wish = PictureWish(start=t, end=None, width=width, kind=format)
    return await _answer(video_id, wish, request, parts, if_none_match)


@router.get(
    "/videos/{video_id}/preview",
    summary="A short moving picture of a video",
    response_class=Response,
    responses=_ANSWERS,
)
async def get_preview(
    video_id: str,
    request: Request,
    parts: Ready,
    start: Second = 0.0,
    end: Second | None = None,
    width: Annotated[int, Query(ge=16, le=640)] = 240,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Animated WebP of [start, end), seconds; at most 24 pictures, so long parts go faster."""
    stop = start + 4.0 if end is None else end
    if stop <= start:
        raise ApiError("time_range", "end must be after start.", param="end", actual=stop)
    wish = PictureWish(start=start, end=stop, width=width, kind="webp")
    return await _answer(video_id, wish, request, parts, if_none_match)


async def _answer(
    video_id: str, wish: PictureWish, request: Request, parts: Parts, if_none_match: str | None
) -> Response:
    stored, _, library = await kept_video(video_id, parts)
    decoder = _decoder(parts)
    asked = f"{_VERSION} {wish}"

    async def make() -> bytes:
        async with library.local(stored.sha256) as path:
            return await ask_picture(decoder, path, wish)

    found = library.pictures.get(stored.sha256, asked, make)
    if library.pictures.has(stored.sha256, asked):
        data = await found
    else:
        seconds = seconds_allowed(request, None, parts)
        began = time.perf_counter()
        try:
            place = parts.admission.enter("video", seconds=seconds)
            with place:
                data = await attended(request, found, seconds=seconds)
        finally:
            found.close()  # it was not begun if there was no place
        request.state.stages["decode"] = time.perf_counter() - began
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, max-age=86400",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if if_none_match is not None and names(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=f"image/{wish.kind}", headers=headers)


async def pictured(parts: Parts, answers: Sequence[A]) -> list[A]:
    """Add ``thumbnail_url`` to those whose video is kept; return all of them."""
    if parts.media is None or not answers:
        return list(answers)
    kept = await parts.media.kept_videos(sorted({_video_of(answer) for answer in answers}))
    for answer in answers:
        if _video_of(answer) in kept:
            _add_picture(answer)
    return list(answers)


def _video_of(answer: HitAnswer | StoredVideoAnswer) -> str:
    return answer.id if isinstance(answer, StoredVideoAnswer) else answer.video_id


def _add_picture(answer: HitAnswer | StoredVideoAnswer) -> None:
    path = f"/videos/{_video_of(answer)}/thumbnail"
    if isinstance(answer, StoredVideoAnswer):
        answer.thumbnail_url = path
        return
    moments: list[Moment] = [answer, *(answer.segments or ())]
    for moment in moments:
        moment.thumbnail_url = f"{path}?t={(moment.start + moment.end) / 2:.3f}"


def _decoder(parts: Parts) -> DecodePool:
    engine = parts.serving.present.engine
    if engine is None:
        raise ApiError("not_ready", "This service decodes nothing.", retry_after_seconds=5)
    return engine.decoder
