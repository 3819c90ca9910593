"""Multipart forms, whose files go straight to the spool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import ApiError
from service.intake.body import BodyLimits, chunks
from service.intake.plain_fields import PlainFields
from service.spool import SpoolFile

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_VIDEO = "video"
_PART_HEADER_BYTES = 4096


@dataclass
class Form:
    """What a multipart body held besides the video, in the order it came."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    has_video: bool = False


class FormFiles(Protocol):
    """Where the files of a form go."""

    def begin(self, name: str, file_name: str | None) -> SpoolFile | None:
        """Return the file for a part, None if it is a field, or raise ApiError.

        Whether a part without a file name is a field follows from its name alone.
        """

    async def drain(self, *, everything: bool = False) -> None:
        """Write what waits, see `SpoolFile.drain`."""


class _OneVideo:
    """A form with one file, called ``video``."""

    def __init__(self, video: SpoolFile) -> None:
        self.taken = False
        self._video = video
        self.drain = video.drain

    def begin(self, name: str, file_name: str | None) -> SpoolFile | None:
        if name == _VIDEO:
            if self.taken:
                raise ApiError("malformed_multipart", "The form has two videos.", param=_VIDEO)
            self.taken = True
            return self._video
        if file_name is not None:
            raise ApiError("malformed_multipart", "Only the video may be a file.", param=name[:64])
        return None


async def read_form(
    request: Request,
    video: SpoolFile,
    limits: BodyLimits,
    *,
    fingerprint: Hash | None = None,
) -> Form:
    """Read a multipart form whose only file is ``video``; its name and type are ignored.

    Raises:
        ApiError: 400, 408, 413 or 507.
    """
    files = _OneVideo(video)
    fields = await read_files(request, files, limits, fingerprint=fingerprint)
    return Form(fields, has_video=files.taken)


async def read_files(
    request: Request,
    files: FormFiles,
    limits: BodyLimits,
    *,
    fingerprint: Hash | None = None,
) -> list[tuple[str, str]]:
    """Read a multipart form whose files go where `files` says; return the fields.

    `fingerprint` takes in fields and files in their order, not the boundary: clients draw another
    one when they send the same form again.

    Raises:
        ApiError: 400, 408, 413 or 507.
    """
    parts = _Parts(files, limits)
    _, options = parse_options_header(request.headers.get("content-type", ""))
    overhead = limits.max_field_bytes + limits.max_parts * _PART_HEADER_BYTES
    try:
        callbacks: Any = parts.callbacks()
        boundary = options.get(b"boundary", b"")
        parser = MultipartParser(boundary, callbacks)
        plain = PlainFields(boundary, take=parts.plain)
        async for chunk in chunks(request, limits, max_bytes=limits.max_video_bytes + overhead):
            parser.write(plain.feed(chunk))
            await files.drain()
        parser.write(plain.rest())
        parser.finalize()
    except (FormParserError, UnicodeDecodeError):
        raise _malformed() from None
    if not parts.ended:
        raise _malformed()
    await files.drain(everything=True)
    if fingerprint is not None:
        fingerprint.update(repr(parts.content()).encode())
    return parts.fields


def _malformed() -> ApiError:
    return ApiError("malformed_multipart", "The multipart body is malformed or incomplete.")


class _Parts:
    """Callbacks of the multipart parser: at most one field is held that is not finished."""

    def __init__(self, files: FormFiles, limits: BodyLimits) -> None:
        self.fields: list[tuple[str, str]] = []
        self.ended = False
        self._received: list[tuple[str, SpoolFile]] = []
        self._files = files
        self._file: SpoolFile | None = None
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

    def content(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the fields, and the names and digests of the files, which must be written."""
        return self.fields, [(name, file.sha256) for name, file in self._received]

    def plain(self, name: str, values: Sequence[bytes]) -> None:
        """Take whole parts without file names: what `part_begin` to `part_end` do, at once."""
        self._plain(name, values[0])
        if self._file is None and self._take_together(name, values[1:]):
            return
        for value in values[1:]:
            self._plain(name, value)

    def _plain(self, name: str, value: bytes) -> None:
        self._count += 1
        if self._count > self._limits.max_parts:
            raise self._too_many()
        self._name = name
        self._file = self._files.begin(name, None)
        if self._file is not None:
            self._file.feed(value)
            self._received.append((name, self._file))
            return
        self._total += len(value)
        if self._total > self._limits.max_field_bytes:
            raise self._too_large()
        if 0 in value:
            raise self._has_nul()
        self.fields.append((name, value.decode()))

    def _take_together(self, name: str, values: Sequence[bytes]) -> bool:
        """Take values of a field, unless one of them is to be refused: then one by one."""
        if not values:
            return True
        joined = b"\0".join(values)
        count = self._count + len(values)
        total = self._total + len(joined) - (len(values) - 1)
        is_within = count <= self._limits.max_parts and total <= self._limits.max_field_bytes
        try:
            texts = joined.decode().split("\0")
        except UnicodeDecodeError:
            return False
        if not is_within or len(texts) != len(values):
            return False
        self._count, self._total = count, total
        self.fields.extend((name, text) for text in texts)
        return True

    def part_begin(self) -> None:
        self._count += 1
        if self._count > self._limits.max_parts:
            raise self._too_many()
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
        file_name = options.get(b"filename")
        self._file = self._files.begin(
            self._name, None if file_name is None else file_name.decode("utf-8", "replace")
        )

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.feed(data[start:end])
            return
        self._data += data[start:end]
        self._total += end - start
        # All fields together obey the cap of one: they are options, not content.
        if self._total > self._limits.max_field_bytes:
            raise self._too_large()

    def part_end(self) -> None:
        if self._file is not None:
            self._received.append((self._name, self._file))
            return
        if 0 in self._data:
            raise self._has_nul()
        self.fields.append((self._name, self._data.decode()))

    def end(self) -> None:
        self.ended = True

    def _too_many(self) -> ApiError:
        most = self._limits.max_parts
        return ApiError("too_many_parts", f"The form has more than {most} parts.", limit=most)

    def _too_large(self) -> ApiError:
        most = self._limits.max_field_bytes
        return ApiError(
            "field_too_large",
            f"The fields are larger than {most} bytes.",
            param=self._name[:64],
            limit=most,
        )

    def _has_nul(self) -> ApiError:
        name = self._name[:64]
        return ApiError("malformed_multipart", "A field holds a NUL character.", param=name)
