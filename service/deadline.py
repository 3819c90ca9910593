"""Time: how long stages take, and when an answer is worthless."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class DeadlineExceededError(TimeoutError):
    """The request's deadline passed; what ran for it was ended."""

    code = "deadline_exceeded"
    detail = "The answer would have come too late."


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent inside to `timings[name]`."""
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.monotonic() - began


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
