"""Server-sent events (WHATWG HTML, section 9.2): one answer in parts, as they are made.

FastAPI's own events come from routes that are generators: their status is 200 before the first
line has run. Here the answer begins when the first event is there, so that what is wrong with a
request is an answer with its own status, as everywhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.deadline import reached
from service.errors import ApiError

logger = logging.getLogger("vtag.http")

MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True)
class Event:
    """One event: its name, and JSON."""

    name: str
    data: bytes


def wants_events(accept: str) -> bool:
    """Whether the value of an ``Accept`` header names events, and does not refuse them (q=0)."""
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == MEDIA_TYPE:
            return not any(_is_zero(parameter) for parameter in parameters)
    return False


class EventStream(Response):
    """An answer of events that are still being made.

    When the client leaves, or does not read for `silence_seconds`, `events` is closed: what it
    awaits is cancelled. An error ends the stream with an event ``error`` whose data is a problem.

    Args:
        first: the event that is there already.
        events: the others.
        held: closed after the last byte, whatever happens: places, files.
        problem: an error -> the members of a problem; it must not raise.
        silence_seconds: longest time without an event; then a comment is sent.
        gone: called when the client left before the end.
    """

    def __init__(
        self,
        first: Event,
        events: AsyncGenerator[Event, None],
        *,
        held: AsyncExitStack,
        problem: Callable[[Exception], dict[str, Any]],
        silence_seconds: float,
        gone: Callable[[], None],
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"  # or nginx would keep events back
        self._first = first
        self._events = events
        self._held = held
        self._problem = problem
        self._silence_seconds = silence_seconds
        self._gone = gone

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; the body of the request must have been read."""
        watch = asyncio.ensure_future(_disconnect(receive))
        coming: asyncio.Future[Event] | None = None
        try:
            async with self._held:
                try:
                    await self._start(send)
                    await self._send(send, _bytes(self._first))
                    while not watch.done():
                        if coming is None:
                            coming = asyncio.ensure_future(anext(self._events))
                        both: set[asyncio.Future[Any]] = {coming, watch}
                        await asyncio.wait(
                            both,
                            timeout=self._silence_seconds,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        if not coming.done():
                            if not watch.done():
                                await self._send(send, KEEPALIVE_COMMENT)
                            continue
                        try:
                            event = coming.result()
                        except StopAsyncIteration:
                            await self._send(send, b"", more=False)
                            return
                        except Exception as error:  # noqa: BLE001 - it is told to the client, or logged
                            problem = orjson.dumps(self._problem(error))
                            await self._send(send, _bytes(Event("error", problem)), more=False)
                            return
                        finally:
                            coming = None
                        await self._send(send, _bytes(event))
                    self._gone()
                except (OSError, TimeoutError):  # it does not read any more
                    self._gone()
                finally:
                    if coming is not None:
                        coming.cancel()
                        await asyncio.wait({coming})
                        if not coming.cancelled():
                            coming.exception()  # nobody asks for it any more
                    await self._events.aclose()
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    async def _start(self, send: Send) -> None:
        message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(message)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        reached("answer")
        async with asyncio.timeout(self._silence_seconds):
            await send({"type": "http.response.body", "body": body, "more_body": more})


def unexpected(error: Exception) -> ApiError:
    """The problem of an error that nobody foresaw; it goes to the log."""
    logger.error("unexpected error in a stream of events", exc_info=error)
    return ApiError("internal_error", "The service failed; the logs say why.")


def _bytes(event: Event) -> bytes:
    return format_sse_event(event=event.name, data_str=event.data.decode())


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name == "q" and value.strip("0.") == "" and value != ""


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
