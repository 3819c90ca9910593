"""A prediction that gets better, or rules its video out, while the video waits for a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from service.decode.backlog import Job
from service.decode.cost import Prediction

T = TypeVar("T")


async def refined(call: Awaitable[T], job: Job, *, better: Coroutine[Any, Any, Prediction]) -> T:
    """Await `call`, whose prediction becomes `better` as soon as that is there.

    Both run side by side, so a header that takes long to read holds nobody up. If `better` fails
    before the call has begun, its error is raised at once; afterwards the call decides.

    Args:
        call: a video that waits for its worker and is decoded.
        job: what is known about it.
        better: reads the header; ended with the call.
    """
    predicting = asyncio.create_task(better)
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
