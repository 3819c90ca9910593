"""Connections of uvicorn, with an end for clients that say nothing or never stop."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LINGER_SECONDS: Final = 5.0
"""How long the rest of a body is thrown away after its request was refused: an answer that is
followed by a reset is lost on many clients and proxies."""

_CHECKED_BYTES: Final = 64 * 1024
_LEAST_CONTENT: Final = 0.5
"""Share of a body's bytes that must be content. Chunks of one byte cost the event loop as much as
chunks of a mebibyte: one client that sends a megabyte of them a second takes all of it."""


class BoundedConnection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, and three bounds that it does not have.

    The header of a request must be complete in `header_seconds` (uvicorn waits for ever, and a
    client with 10,000 silent connections takes all descriptors). A body that goes on after its
    answer is cut off after `_LINGER_SECONDS`. A body that is mostly framing is cut off.
    """

    header_seconds: float = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first header."""
        super().connection_made(transport)
        self._limit: asyncio.TimerHandle | None = None
        self._watched: object = None
        self._wire_bytes = self._content_bytes = 0
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        cycle = self.cycle
        before = 0 if cycle is None else len(cycle.body)
        in_body = self.conn.their_state is h11.SEND_BODY
        super().data_received(data)
        if in_body and cycle is self.cycle:
            self._wire_bytes += len(data)
            self._content_bytes += len(cycle.body) - before
            if self._is_flood():
                self._give_up()
        else:
            self._wire_bytes = self._content_bytes = 0
        self._watch()

    def _is_flood(self) -> bool:
        ours = self.conn.our_state
        is_read = ours is not h11.DONE  # after the answer, content is thrown away uncounted
        content = self._content_bytes / max(1, self._wire_bytes)
        return is_read and self._wire_bytes >= _CHECKED_BYTES and content < _LEAST_CONTENT

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for the rest of this one."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """Keep the clock that fits what is waited for now."""
        theirs, ours = self.conn.their_state, self.conn.our_state
        waiting: tuple[Any, float] | None = None
        if theirs is h11.IDLE and self.timeout_keep_alive_task is None:
            waiting = (h11.IDLE, self.header_seconds)
        elif theirs is h11.SEND_BODY and ours is h11.DONE:
            waiting = (h11.DONE, _LINGER_SECONDS)
        if waiting is not None and waiting[0] is self._watched:
            return  # bytes that trickle in do not turn the clock back
        self._stop_clock()
        if waiting is not None:
            self._watched = waiting[0]
            self._limit = self.loop.call_later(waiting[1], self._give_up)

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self._watched = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def bounded(*, header_seconds: float) -> type[BoundedConnection]:
    """Return the class of connections whose headers take no longer than this."""
    return type("Connection", (BoundedConnection,), {"header_seconds": header_seconds})
