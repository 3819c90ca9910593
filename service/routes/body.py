"""From the body of a request to checked options and, where there is one, a video on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import ApiError, invalid
from service.fetch import Fetcher
from service.intake.body import media_type, read_json
from service.intake.form import Form, read_form
from service.routes.answers import preferred_wait
from service.routes.client import attended
from service.routes.media import kept_video
from service.routes.parts import Parts, body_limits
from service.routes.repeats import digest_of, is_repeat, recognise
from service.schemas import VideoOptions, VideoSource
from service.spool import SpoolFile, spool_base64
from service.strict_json import strict_json

B = TypeVar("B", bound=BaseModel)
V = TypeVar("V", bound=VideoOptions)

_LISTS: Final = frozenset({"labels", "templates", "include", "lambdas", "classes"})
_OBJECTS: Final = frozenset({"sampling", "segments", "metadata", "rule", "filter", "webhook"})
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


def has_body(request: Request) -> bool:
    """Tell whether a request whose body may be left out has one."""
    length = request.headers.get("content-length", "0")
    return length.strip() != "0" or "transfer-encoding" in request.headers


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
        values = await read_json(request, limits, fingerprint=digest_of(request))
    recognise(request)
    return checked(model, values)


@asynccontextmanager
async def video_body(
    request: Request, parts: Parts, model: type[V], *, later: bool = False
) -> AsyncIterator[tuple[V, SpoolFile]]:
    """Yield the options and the video, which is removed from the disk afterwards.

    Args:
        request: of the client.
        parts: of the request.
        model: shape of the options.
        later: a job does the work: no place is taken for it, and a video that is elsewhere (a URL,
            the store of videos) is not brought; then the file is empty.
    """
    limits = body_limits(parts.settings)
    # Refuse before the upload what would be refused after it.
    most = parts.settings.request_timeout_seconds
    seconds = min(preferred_wait(request) or most, most)
    async with AsyncExitStack() as stack:
        place = stack.enter_context(ExitStack())
        if not later and not is_repeat(request):
            place.enter_context(parts.admission.keep("video", seconds=seconds))
        video = await stack.enter_async_context(parts.spool.file())
        start = time.perf_counter()
        with parts.admission.enter("upload"):
            if media_type(request) == "multipart":
                form = await read_form(request, video, limits, fingerprint=digest_of(request))
                recognise(request)
                options = _form_options(form, model)
            else:
                values = await read_json(request, limits, fingerprint=digest_of(request))
                recognise(request)
                options = checked(model, values)
                if not (later and _is_elsewhere(options.video)):
                    await _bring(options.video, video, request, parts)
        video.close()
        request.state.stages["receive"] = time.perf_counter() - start
        parts.metrics.upload_bytes.inc(video.size_bytes)
        place.close()  # nothing is awaited until the caller enters: it is still there
        yield options, video


def _form_options(form: Form, model: type[V]) -> V:
    options = form_options(form.fields, model)
    if options.video is not None:
        raise ApiError("invalid_request", "In a form the video is a file.", param="video")
    if not form.has_video:
        raise ApiError("missing_video", "The form has no part called video.", param="video")
    return options


def form_options(fields: Sequence[tuple[str, str]], model: type[B]) -> B:
    """Return the options that the fields of a form hold, one by one or as JSON in ``request``.

    Raises:
        ApiError: ``invalid_request`` or ``malformed_json``.
    """
    names = [name for name, _ in fields]
    if _WHOLE in names:
        if len(names) > 1:
            raise ApiError(
                "invalid_request", "The field request stands alone beside the video.", param=_WHOLE
            )
        return checked(model, strict_json(fields[0][1]))
    return checked(model, _form_values(fields), strict=False)


def _form_values(fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in fields:
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


def _is_elsewhere(source: VideoSource | None) -> bool:
    return source is not None and source.type in ("url", "video_id")


async def _bring(
    source: VideoSource | None, video: SpoolFile, request: Request, parts: Parts
) -> None:
    """Bring the video of a JSON body to the disk; whoever waits for it may leave meanwhile."""
    if source is None or not _is_elsewhere(source):
        await spool_source(source, video, fetcher=parts.fetcher)
        return
    start = time.perf_counter()
    if source.type == "url":
        work = spool_source(source, video, fetcher=parts.fetcher)
    else:
        work = _spool_kept(source.video_id, video, parts)
    limit = parts.settings.upload_timeout_seconds
    await attended(request, work, seconds=limit, stage="receive")
    request.state.stages["fetch"] = time.perf_counter() - start


async def _spool_kept(video_id: str | None, video: SpoolFile, parts: Parts) -> None:
    """Bring a video of the index to the disk.

    Raises:
        ApiError: ``missing_video``, or as `kept_video`.
    """
    if video_id is None:
        raise ApiError("missing_video", "Type video_id needs video_id.", param="video.video_id")
    _, kept, library = await kept_video(video_id, parts, param="video.video_id")
    async for chunk in library.read(kept, start=0, length=kept.size_bytes):
        video.feed(chunk)
        await video.drain()
    await video.drain(everything=True)


async def spool_source(
    source: VideoSource | None, video: SpoolFile, *, fetcher: Fetcher, param: str = "video"
) -> None:
    """Bring the video that JSON describes to the disk.

    Raises:
        ApiError: 422 for what is missing or not offered; see `Fetcher.fetch` for URLs.
    """
    if source is None:
        raise ApiError("missing_video", "There is no video.", param=param)
    if source.type == "url":
        if source.url is None:
            raise ApiError("missing_video", "Type url needs url.", param=f"{param}.url")
        await fetcher.fetch(source.url, video, param=f"{param}.url")
        return
    if source.type != "base64":
        raise ApiError(
            "video_not_kept",
            "Videos are not kept after the request that sent them; send the bytes.",
            param=f"{param}.{source.type}",
        )
    if source.data is None:
        raise ApiError("missing_video", "Type base64 needs data.", param=f"{param}.data")
    await spool_base64(source.data, video, param=f"{param}.data")
