"""Time: how long stages take, which one a request is in, and when its answer is worthless."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal


class DeadlineExceededError(TimeoutError):
    """The request's deadline passed; what ran for it was ended."""

    code = "deadline_exceeded"
    detail = "The answer would have come too late."


StageName = Literal["receive", "wait", "decode", "batch", "encode", "answer"]
"""`receive`: its body comes; `wait`: for weights, a place for its frames, a decoder; `decode`;
`batch`: its clips were in no batch yet; `encode`: in one, or between two; `answer`: the rest."""


@dataclass
class Stage:
    """Where a request is; the tasks that work for it share one of these.

    Attributes:
        name: of the last stage that it reached.
        seconds: that were spent so far, by what for; work that goes on side by side counts twice.
    """

    name: StageName = "receive"
    seconds: dict[str, float] = field(default_factory=dict)


stage_var: ContextVar[Stage] = ContextVar("stage")
"""Of the request that is being worked on."""


def reached(name: StageName) -> None:
    """Note that the request, if this is done for one, has come to this stage."""
    stage = stage_var.get(None)
    if stage is not None:
        stage.name = name


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent inside to `timings[name]`."""
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.monotonic() - began


@contextmanager
def spent(name: str) -> Iterator[None]:
    """Add the seconds spent inside to those of the request, if this is done for one."""
    stage = stage_var.get(None)
    with timed({} if stage is None else stage.seconds, name):
        yield


@asynccontextmanager
async def until(deadline: float | None) -> AsyncIterator[None]:
    """End what runs inside at `deadline` (`time.monotonic()`; None: never).

    Raises:
        DeadlineExceededError: it was ended.
    """
    # The event loop's clock is time.monotonic().
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceededError("the request's deadline passed") from error
        raise
