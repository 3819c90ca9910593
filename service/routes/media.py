"""``/videos/{id}/content``: the bytes of a video that is kept, whole or in part."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Header, Request, Response

from service.errors import ApiError
from service.ids import is_id
from service.index.video_index import StoredVideo
from service.media.content_type import UNKNOWN, ending
from service.media.library import MediaLibrary
from service.media.records import Kept
from service.routes.byte_range import byte_range
from service.routes.byte_stream import ByteStream
from service.routes.parts import Parts, Ready

router = APIRouter(tags=["videos"])

_PREFIX: Final = "vid"
_BYTES: Final[dict[str, Any]] = {
    "content": {"video/*": {"schema": {"type": "string", "format": "binary"}}}
}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The video.", **_BYTES},
    206: {"description": "The part that `Range` names.", **_BYTES},
    304: {"description": "The client has it."},
}


@router.get(
    "/videos/{video_id}/content",
    summary="The video itself",
    response_class=Response,
    responses=_ANSWERS,
)
@router.head("/videos/{video_id}/content", include_in_schema=False)
async def get_content(
    video_id: str,
    request: Request,
    parts: Ready,
    range_: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes as they were sent; one ``Range`` at a time, several are answered with all."""
    _, kept, library = await kept_video(video_id, parts)
    tag = f'"{kept.sha256}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Type": kept.content_type,
        "Content-Disposition": _disposition(video_id, kept.content_type),
        # The bytes of an id never change, but who may see them may.
        "Cache-Control": "private, no-cache",
        # Whatever a browser takes the bytes for, they do nothing.
        "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'",
    }
    if if_none_match is not None and names(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    if if_range is not None and if_range.strip() != tag:
        range_ = None
    part = byte_range(range_, size=kept.size_bytes)
    start, length = part or (0, kept.size_bytes)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{kept.size_bytes}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers={**headers, "Content-Length": str(length)})
    async with AsyncExitStack() as undo:
        undo.enter_context(parts.admission.enter("download"))
        found = library.read(kept, start=start, length=length)
        rest = cast(AsyncGenerator[bytes, None], found)
        undo.push_async_callback(rest.aclose)
        first = await anext(rest, b"")
        return ByteStream(
            first,
            rest,
            size=length,
            status=status,
            headers=headers,
            held=undo.pop_all(),
            stall_seconds=parts.settings.upload_stall_seconds,
            gone=parts.metrics.cancelled.labels("send").inc,
        )
    raise AssertionError("the block above returns")


async def kept_video(
    video_id: str, parts: Parts, *, param: str = "video_id"
) -> tuple[StoredVideo, Kept, MediaLibrary]:
    """Return a video of the index whose bytes are kept.

    Raises:
        ApiError: ``video_not_found`` or ``media_not_kept``.
    """
    stored = await parts.index.get(video_id) if is_id(video_id, prefix=_PREFIX) else None
    if stored is None:
        raise ApiError("video_not_found", "There is no video with this id.", param=param)
    if parts.media is None:
        raise ApiError("media_not_kept", "This service does not keep videos.", param=param)
    kept = await parts.media.find(stored.sha256)
    if kept is None:
        raise ApiError(
            "media_not_kept",
            "This video was indexed without being kept; send it again to keep it.",
            param=param,
        )
    return stored, kept, parts.media


def names(header: str, tag: str) -> bool:
    """Tell whether the value of ``If-None-Match`` names `tag`; weakly, as the RFC has it."""
    found = {item.strip().removeprefix("W/") for item in header.split(",")}
    return tag in found or "*" in found


def _disposition(video_id: str, kind: str) -> str:
    shown = "attachment" if kind == UNKNOWN else "inline"
    return f'{shown}; filename="{video_id}.{ending(kind)}"'
