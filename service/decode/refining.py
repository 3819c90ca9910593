"""A prediction that gets better, or rules its video out, while the video waits for a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, TypeVar

from service.deadline import DeadlineExceededError
from service.decode.backlog import Job
from service.decode.cost import Prediction

T = TypeVar("T")

_AT_LEAST: Final = 0.5
"""Of what a header predicts; few videos take less."""


async def refined(
    call: Awaitable[T],
    job: Job,
    *,
    better: Coroutine[Any, Any, Prediction],
    deadline: float | None = None,
) -> T:
    """Await `call`, whose prediction becomes `better` as soon as that is there.

    Both run side by side, so a header that takes long to read holds nobody up. If `better` fails
    before the call has begun, its error is raised at once; afterwards the call decides.

    Args:
        call: a video that waits for its worker and is decoded.
        job: what is known about it.
        better: reads the header; ended with the call.
        deadline: `time.monotonic()` at which the pictures are worthless.

    Raises:
        DeadlineExceededError: decoding alone would surely end after the deadline.
    """
    predicting = asyncio.create_task(_in_time(better, deadline))
    try:
        async with asyncio.timeout(None) as patience:

            def settle(found: asyncio.Future[Prediction]) -> None:
                if found.cancelled():
                    return
                if found.exception() is None:
                    job.prediction = found.result()
                elif job.began is None and waits:
                    patience.reschedule(0.0)

            waits = True
            predicting.add_done_callback(settle)
            try:
                return await call
            finally:
                waits = False
    except TimeoutError:
        error = predicting.exception() if patience.expired() else None
        if error is None:
            raise
        raise error from None
    finally:
        predicting.cancel()
        await asyncio.wait([predicting])  # it uses the file, which is closed next


async def _in_time(better: Coroutine[Any, Any, Prediction], deadline: float | None) -> Prediction:
    found = await better
    if deadline is None or found.kind == "size":  # a guess rules nothing out
        return found
    if _AT_LEAST * found.seconds > deadline - time.monotonic():
        raise DeadlineExceededError(f"decoding takes about {found.seconds:.0f} s")
    return found
