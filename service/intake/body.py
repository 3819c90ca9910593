"""Bodies of requests: bounded in size, silence and time, whatever is in them; and JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import Request

from service.errors import ApiError, ClientGoneError
from service.strict_json import strict_json

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_LONG_JSON = 4 * 1024 * 1024  # parsing more would hold up the event loop


@dataclass(frozen=True)
class BodyLimits:
    """Bounds of one body, in bytes, parts and seconds."""

    max_json_bytes: int
    max_video_bytes: int
    max_field_bytes: int
    max_parts: int
    stall_seconds: float
    total_seconds: float


def media_type(request: Request) -> Literal["json", "multipart"]:
    """Tell what the body claims to be.

    Raises:
        ApiError: ``unsupported_media_type`` for anything else and for compressed bodies.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError("unsupported_media_type", "Compressed bodies are not accepted.")
    declared = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if declared == "multipart/form-data":
        return "multipart"
    if declared == "application/json" or declared.endswith("+json"):
        return "json"
    raise ApiError(
        "unsupported_media_type", "Send application/json, or multipart/form-data with a video."
    )


async def chunks(request: Request, limits: BodyLimits, *, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body, bounded in size, silence and time."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes, int(declared))
    clock = asyncio.get_running_loop().time
    end = clock() + limits.total_seconds
    size = 0
    more = True
    while more:
        patience = min(limits.stall_seconds, end - clock())
        try:
            message = await asyncio.wait_for(request.receive(), max(patience, 0.001))
        except TimeoutError:
            raise ApiError(
                "slow_body",
                "The body did not arrive in time.",
                limit=limits.stall_seconds if clock() < end else limits.total_seconds,
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes, size)
        more = message.get("more_body", False)
        if chunk:
            yield chunk


def _too_large(limit: int, actual: int) -> ApiError:
    return ApiError(
        "body_too_large",
        f"The body is larger than {limit} bytes.",
        param="body",
        limit=limit,
        actual=actual,
    )


async def read_json(
    request: Request, limits: BodyLimits, *, fingerprint: Hash | None = None
) -> Any:
    """Read a JSON body under a byte cap; `fingerprint` takes in what makes it this body.

    Raises:
        ApiError: 400, 408, 413 or 415.
    """
    if media_type(request) != "json":
        raise ApiError("unsupported_media_type", "Send application/json.")
    body = bytearray()
    async for chunk in chunks(request, limits, max_bytes=limits.max_json_bytes):
        body += chunk
        if fingerprint is not None:
            fingerprint.update(chunk)
    if len(body) > _LONG_JSON:
        return await asyncio.to_thread(strict_json, body)
    return strict_json(body)
