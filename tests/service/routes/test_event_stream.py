"""A stream of events: what is sent, and what is left behind when it ends early."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.routes.event_stream import Event, EventStream, wants_events


@dataclass
class Peer:
    """The other end: takes what is sent, leaves when it has seen enough.

    Attributes:
        messages: what was sent.
        left: whether it has left.
        stalls: it stops reading.
        leaves: it leaves when it has seen this.
        pings: it leaves when it has seen so many.
    """

    messages: list[Any] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    stalls: bool = False
    leaves: str | None = None
    pings: int = 0

    async def receive(self) -> dict[str, Any]:
        """Say nothing until it leaves."""
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message, or never finish."""
        self.messages.append(message)
        if self.leaves is not None and self.leaves in self.text:
            self.left.set()
        if self.pings and self.text.count(": ping") >= self.pings:
            self.left.set()
        if self.stalls and len(self.messages) > 2:
            await asyncio.Event().wait()

    @property
    def text(self) -> str:
        """All bodies."""
        return b"".join(message.get("body", b"") for message in self.messages).decode()


@dataclass
class Run:
    """One stream and what became of it."""

    peer: Peer
    closed: bool = False
    released: bool = False
    gone: int = 0


Events = Callable[[], AsyncGenerator[Event, None]]


async def _run(events: Events, *, peer: Peer | None = None, silence: float = 30.0) -> Run:
    run = Run(peer or Peer())

    async def source() -> AsyncGenerator[Event, None]:
        try:
            async for event in events():
                yield event
        finally:
            run.closed = True

    def release() -> None:
        run.released = True

    def gone() -> None:
        run.gone += 1

    stack = AsyncExitStack()
    stack.callback(release)
    stream = EventStream(
        Event("meta", b'{"first": 1}'),
        source(),
        held=stack,
        problem=lambda error: {"code": type(error).__name__},
        silence_seconds=silence,
        gone=gone,
    )
    async with asyncio.timeout(60):
        await stream({"type": "http"}, run.peer.receive, run.peer.send)
    return run


async def _two() -> AsyncGenerator[Event, None]:
    yield Event("segment", b"[1]")
    yield Event("done", b"{}")


async def _endless() -> AsyncGenerator[Event, None]:
    yield Event("segment", b"[1]")
    await asyncio.Event().wait()


async def _broken() -> AsyncGenerator[Event, None]:
    yield Event("segment", b"[1]")
    raise LookupError("secret")


@pytest.mark.anyio
async def test_events_are_sent_in_order() -> None:
    """Named, one after the other, then the end; everything that was held is released."""
    run = await _run(_two)
    assert run.peer.text == (
        'event: meta\ndata: {"first": 1}\n\nevent: segment\ndata: [1]\n\nevent: done\ndata: {}\n\n'
    )
    start, *_, last = run.peer.messages
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    assert headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers
    assert last["more_body"] is False
    assert (run.closed, run.released, run.gone) == (True, True, 0)


@pytest.mark.anyio
async def test_silence_is_broken_by_comments() -> None:
    """Proxies close what says nothing."""
    run = await _run(_endless, silence=0.05, peer=Peer(pings=2))
    assert run.peer.text.count(": ping") == 2


@pytest.mark.anyio
async def test_a_client_that_left_stops_the_work() -> None:
    """What is awaited is cancelled, what is held is released, and it is counted."""
    run = await _run(_endless, peer=Peer(leaves="[1]"))
    assert (run.closed, run.released) == (True, True)
    assert run.gone == 1


@pytest.mark.anyio
async def test_a_client_that_does_not_read_is_left() -> None:
    """It holds nothing for longer than the silence that is allowed."""
    run = await _run(_two, peer=Peer(stalls=True), silence=0.1)
    assert (run.closed, run.released, run.gone) == (True, True, 1)


@pytest.mark.anyio
async def test_an_error_is_the_last_event() -> None:
    """As a problem, after what was good; the text of the exception is not in it."""
    run = await _run(_broken)
    assert run.peer.text.endswith('event: error\ndata: {"code":"LookupError"}\n\n')
    assert "secret" not in run.peer.text
    assert run.peer.messages[-1]["more_body"] is False
    assert (run.closed, run.released, run.gone) == (True, True, 0)


@pytest.mark.anyio
async def test_a_server_that_stops_releases_everything() -> None:
    """The answer is cancelled from outside."""
    task = asyncio.create_task(_run(_endless))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("text/event-stream; q=0", False),
        ("text/event-stream;q=0.000", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_events_have_to_be_asked_for(accept: str, expected: bool) -> None:
    """By name; a browser's wildcard gets JSON."""
    assert wants_events(accept) is expected
