"""Bodies of requests: bounded JSON, and multipart forms whose video goes straight to the spool."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import ApiError, ClientGoneError
from service.spool import SpoolFile

_VIDEO = "video"
_PART_HEADER_BYTES = 4096
_BASE64_CHUNK = 4 * 1024 * 1024  # a multiple of 4: chunks decode one by one


@dataclass(frozen=True)
class BodyLimits:
    """Bounds of one body, in bytes, parts and seconds."""

    max_json_bytes: int
    max_video_bytes: int
    max_field_bytes: int
    max_parts: int
    stall_seconds: float
    total_seconds: float


@dataclass
class Form:
    """What a multipart body held besides the video, in the order it came."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    has_video: bool = False


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


async def _chunks(request: Request, limits: BodyLimits, *, max_bytes: int) -> AsyncIterator[bytes]:
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


async def read_json(request: Request, limits: BodyLimits) -> Any:
    """Read a JSON body under a byte cap.

    Raises:
        ApiError: 400, 408, 413 or 415.
    """
    if media_type(request) != "json":
        raise ApiError("unsupported_media_type", "Send application/json.")
    body = bytearray()
    async for chunk in _chunks(request, limits, max_bytes=limits.max_json_bytes):
        body += chunk
    if len(body) > _BASE64_CHUNK:
        return await asyncio.to_thread(strict_json, body)
    return strict_json(body)


def strict_json(text: bytes | bytearray | str) -> Any:
    """Parse JSON as RFC 8259 has it, with no double keys and no number that is not finite.

    Raises:
        ApiError: ``malformed_json`` without the words of the parser.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ApiError("malformed_json", "An object names a key twice.")
        return found

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ApiError("malformed_json", "A number is not finite.")
        return value

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ApiError("malformed_json", "The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise ApiError("malformed_json", "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ApiError(
            "malformed_json", f"Not valid JSON at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:  # integers of more digits than Python converts
        raise ApiError("malformed_json", "A number is too long.") from None


async def read_form(request: Request, video: SpoolFile, limits: BodyLimits) -> Form:
    """Read a multipart form; the part called ``video`` is written to ``video``.

    A file name or a content type that comes with a part is ignored.

    Raises:
        ApiError: 400, 408, 413 or 507.
    """
    parts = _Parts(video, limits)
    _, options = parse_options_header(request.headers.get("content-type", ""))
    overhead = limits.max_field_bytes + limits.max_parts * _PART_HEADER_BYTES
    try:
        callbacks: Any = parts.callbacks()
        parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        async for chunk in _chunks(request, limits, max_bytes=limits.max_video_bytes + overhead):
            parser.write(chunk)
            await video.drain()
        parser.finalize()
    except (FormParserError, UnicodeDecodeError):
        raise _malformed() from None
    if not parts.ended:
        raise _malformed()
    await video.drain(everything=True)
    return parts.form


def _malformed() -> ApiError:
    return ApiError("malformed_multipart", "The multipart body is malformed or incomplete.")


class _Parts:
    """Callbacks of the multipart parser: at most one field is held that is not finished."""

    def __init__(self, video: SpoolFile, limits: BodyLimits) -> None:
        self.form = Form()
        self.ended = False
        self._video = video
        self._limits = limits
        self._count = 0
        self._total = 0
        self._name = ""
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._data = bytearray()

    def callbacks(self) -> dict[str, Any]:
        """Return the methods under the names the parser calls them by."""
        names = ["part_begin", "part_data", "part_end", "header_begin", "header_field"]
        names += ["header_value", "header_end", "headers_finished", "end"]
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        self._count += 1
        if self._count > self._limits.max_parts:
            raise ApiError(
                "too_many_parts",
                f"The form has more than {self._limits.max_parts} parts.",
                limit=self._limits.max_parts,
            )
        self._disposition = b""
        self._data = bytearray()

    def header_begin(self) -> None:
        self._header = bytearray()
        self._value = bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _malformed()
        self._name = options[b"name"].decode()
        if self._name == _VIDEO:
            if self.form.has_video:
                raise ApiError("malformed_multipart", "The form has two videos.", param=_VIDEO)
            self.form.has_video = True
        elif b"filename" in options:
            raise ApiError(
                "malformed_multipart", "Only the video may be a file.", param=self._name[:64]
            )

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _VIDEO:
            self._video.feed(data[start:end])
            return
        self._data += data[start:end]
        self._total += end - start
        # All fields together obey the cap of one: they are options, not content.
        if self._total > self._limits.max_field_bytes:
            raise ApiError(
                "field_too_large",
                f"The fields are larger than {self._limits.max_field_bytes} bytes.",
                param=self._name[:64],
                limit=self._limits.max_field_bytes,
            )

    def part_end(self) -> None:
        if self._name != _VIDEO:
            self.form.fields.append((self._name, self._data.decode()))

    def end(self) -> None:
        self.ended = True


async def spool_base64(text: str, video: SpoolFile, *, param: str = "video.data") -> None:
    """Decode base64 (standard alphabet, padded) into the spool, piece by piece.

    Raises:
        ApiError: ``invalid_base64`` or ``body_too_large``.
    """
    for start in range(0, len(text), _BASE64_CHUNK):
        piece = text[start : start + _BASE64_CHUNK]
        try:
            data = base64.b64decode(piece, validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(
                "invalid_base64", f"{param} is not standard, padded base64.", param=param
            ) from None
        video.feed(data)
        await video.drain()
    await video.drain(everything=True)
