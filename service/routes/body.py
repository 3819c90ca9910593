"""From the body of a request to checked options and, where there is one, a video on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import ApiError, invalid
from service.intake import Form, media_type, read_form, read_json, spool_base64, strict_json
from service.routes.parts import Parts, body_limits
from service.schemas import VideoOptions, VideoSource
from service.spool import SpoolFile

B = TypeVar("B", bound=BaseModel)
V = TypeVar("V", bound=VideoOptions)

_LISTS: Final = frozenset({"labels", "templates", "include"})
_OBJECTS: Final = frozenset({"sampling", "segments", "metadata"})
_WHOLE: Final = "request"
_MAX_SMALL_BYTES: Final = 1024 * 1024  # of a body that holds no video


def checked(model: type[B], values: Any, *, strict: bool = True) -> B:
    """Validate options: strictly from JSON, with numbers read from text in a form.

    Raises:
        ApiError: ``invalid_request`` with everything that is wrong.
    """
    try:
        return model.model_validate(values, strict=strict)
    except ValidationError as error:
        raise invalid(error) from None


async def json_body(
    request: Request, parts: Parts, model: type[B], *, max_bytes: int = _MAX_SMALL_BYTES
) -> B:
    """Read and check a JSON body, as one of the uploads that are let in.

    Without the lane every connection could hold a body in memory.

    Raises:
        ApiError: as `read_json`; ``saturated`` when too many bodies are being received.
    """
    limits = body_limits(parts.settings)
    limits = replace(limits, max_json_bytes=min(max_bytes, limits.max_json_bytes))
    with parts.admission.enter("upload"):
        return checked(model, await read_json(request, limits))


@asynccontextmanager
async def video_body(
    request: Request, parts: Parts, model: type[V]
) -> AsyncIterator[tuple[V, SpoolFile]]:
    """Yield the options and the video, which is removed from the disk afterwards."""
    limits = body_limits(parts.settings)
    # Refuse before the upload what would be refused after it.
    parts.admission.check("video")
    async with parts.spool.file() as video:
        start = time.perf_counter()
        with parts.admission.enter("upload"):
            if media_type(request) == "multipart":
                form = await read_form(request, video, limits)
                options = _form_options(form, model)
            else:
                options = checked(model, await read_json(request, limits))
                await spool_source(options.video, video)
        video.close()
        request.state.stages["receive"] = time.perf_counter() - start
        parts.metrics.upload_bytes.inc(video.size_bytes)
        yield options, video


def _form_options(form: Form, model: type[V]) -> V:
    names = [name for name, _ in form.fields]
    if _WHOLE in names:
        if len(names) > 1:
            raise ApiError(
                "invalid_request", "The field request stands alone beside the video.", param=_WHOLE
            )
        options = checked(model, strict_json(form.fields[0][1]))
    else:
        options = checked(model, _form_values(form), strict=False)
    if options.video is not None:
        raise ApiError("invalid_request", "In a form the video is a file.", param="video")
    if not form.has_video:
        raise ApiError("missing_video", "The form has no part called video.", param="video")
    return options


def _form_values(form: Form) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in form.fields:
        if name in _LISTS:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise ApiError("invalid_request", "A field was given twice.", param=name[:64])
        elif name in _OBJECTS:
            try:
                values[name] = strict_json(text)
            except ApiError as error:
                raise ApiError("malformed_json", error.detail, param=name) from None
        else:
            values[name] = text
    return values


async def spool_source(
    source: VideoSource | None, video: SpoolFile, *, param: str = "video"
) -> None:
    """Bring the video that JSON describes to the disk.

    Raises:
        ApiError: 422 for what is missing or not offered.
    """
    if source is None:
        raise ApiError("missing_video", "There is no video.", param=param)
    if source.type == "url":
        raise ApiError(
            "url_not_allowed",
            "This service does not fetch URLs; send the bytes.",
            param=f"{param}.url",
        )
    if source.type != "base64":
        raise ApiError(
            "video_not_kept",
            "Videos are not kept after the request that sent them; send the bytes.",
            param=f"{param}.{source.type}",
        )
    if source.data is None:
        raise ApiError("missing_video", "Type base64 needs data.", param=f"{param}.data")
    await spool_base64(source.data, video, param=f"{param}.data")
