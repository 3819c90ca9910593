"""A client that costs next to nothing: requests made beforehand, answers read as bytes.

Measured beside a service on the same cores, a client is part of what it measures. Here a request
is one `write` of bytes that were put together once, an answer is a search for its length.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_BOUNDARY: Final = "d7a1c6f0e2b94835"
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_RETRY: Final = re.compile(rb"retry-after: *(\d+)", re.IGNORECASE)
_CODE: Final = re.compile(rb'"code": *"([a-z_0-9]+)"')
_PAST_KEEP_ALIVE_SECONDS: Final = 3.0
"""The service closes connections that are idle for five; those are not used any more by then."""


class NoAnswerError(Exception):
    """The connection ended before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    """One answer, or its absence.

    Attributes:
        status: of HTTP.
        code: of the problem; empty in an answer of success.
        seconds: from the first byte sent to the last received.
        retry_seconds: `Retry-After`; 0: none.
        body: content.
    """

    status: int
    code: str
    seconds: float
    retry_seconds: int
    body: bytes


def classify_request(
    url: str,
    film: bytes,
    *,
    labels: Sequence[str],
    fields: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a whole ``POST /classify``: header and multipart body, the video last."""
    pairs = [*(("labels", label) for label in labels), *(fields or {}).items()]
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in pairs
    ]
    parts.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="video"; filename="film.mp4"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    )
    body = "".join(parts).encode() + film + f"\r\n--{_BOUNDARY}--\r\n".encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /classify HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n{more}"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.used = time.monotonic()
        self.is_open = False
        self._received = bytearray()
        self._wanted = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to the host and port of `url`."""
        where = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, where.hostname or "", where.port or 80)
        return connection

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent on it."""
        is_fresh = time.monotonic() - self.used < _PAST_KEEP_ALIVE_SECONDS
        return self.is_open and self._answer is None and is_fresh

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer.

        Raises:
            NoAnswerError: the service hung up.
        """
        if self._transport is None or not self.is_open:
            raise NoAnswerError("closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._wanted = 0
        self._sent = time.perf_counter()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None
            self.used = time.monotonic()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswerError(repr(exc)))

    def data_received(self, data: bytes) -> None:
        """Put the answer together."""
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            length = _LENGTH.search(self._received, 0, end) if end >= 0 else None
            if length is None:
                return
            self._wanted = end + 4 + int(length[1])
        if len(self._received) < self._wanted or self._answer is None or self._answer.done():
            return
        head = bytes(self._received[: self._wanted])
        status = int(head[9:12])
        code = _CODE.search(head) if status >= 400 else None
        retry = _RETRY.search(head) if status >= 400 else None
        self._answer.set_result(
            Answer(
                status,
                code[1].decode() if code else "",
                time.perf_counter() - self._sent,
                int(retry[1]) if retry else 0,
                head[head.find(b"\r\n\r\n") + 4 :],
            )
        )
