"""The client at the other end: work for it ends when it leaves or when its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from service.deadline import StageName, reached
from service.errors import ApiError, ClientGoneError

T = TypeVar("T")


@dataclass(frozen=True)
class TimeLimit:
    """How long the work on a request may take, and who says so.

    Attributes:
        seconds: the time.
        words: who says so, for the client.
        param: the part of the request that says so; None: a setting does.
    """

    seconds: float
    words: str
    param: str | None


def too_late(request: Request) -> ApiError:
    """Return the answer of a request whose time is up; it names what limited that."""
    found: TimeLimit | None = getattr(request.state, "time_limit", None)
    if found is None:
        return ApiError(
            "deadline_exceeded",
            "The request took longer than its time limit.",
            retry_after_seconds=5,
        )
    return ApiError(
        "deadline_exceeded",
        f"The request took longer than {found.seconds:g} s, which {found.words}.",
        param=found.param,
        limit=found.seconds,
        retry_after_seconds=5,
    )


async def attended(
    request: Request, work: Coroutine[Any, Any, T], *, seconds: float, stage: StageName = "wait"
) -> T:
    """Run ``work`` and cancel it when the client disconnects or ``seconds`` have passed.

    The body of the request must have been read. ``stage`` is where the request is when it begins.

    Raises:
        ClientGoneError: the client left.
        ApiError: ``deadline_exceeded``.
    """
    reached(stage)
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if watch.done():
            raise ClientGoneError
        raise too_late(request)
    finally:
        watch.cancel()
        task.cancel()
        # Wait for the end of it: until then it may use the file and the slot of this request.
        await asyncio.wait({task, watch})
        if not task.cancelled():
            task.exception()  # it may have failed while it was cancelled; nobody asks any more


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
