"""The client at the other end: work for it ends when it leaves or when its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from service.errors import ApiError, ClientGoneError

T = TypeVar("T")


async def attended(request: Request, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
    """Run ``work`` and cancel it when the client disconnects or ``seconds`` have passed.

    The body of the request must have been read.

    Raises:
        ClientGoneError: the client left.
        ApiError: ``deadline_exceeded``.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if watch.done():
            raise ClientGoneError
        raise ApiError(
            "deadline_exceeded",
            "The request took longer than its time limit.",
            limit=seconds,
            retry_after_seconds=5,
        )
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
