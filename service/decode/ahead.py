"""Parts of a long video, each decoded while the one before it is still being used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - of items
D = TypeVar("D")


@dataclass
class Decoded(Generic[I, D]):
    """One part.

    Attributes:
        item: what was asked for.
        value: what decoding gave.
    """

    item: I
    value: D
    _held: AsyncExitStack = field(repr=False)

    async def release(self) -> None:
        """Give back what holds the pixels; safe to call twice."""
        await self._held.aclose()


async def one_ahead(
    items: AsyncIterator[I],
    *,
    decode: Callable[[I], AbstractAsyncContextManager[D]],
    room: Callable[[], bool],
) -> AsyncGenerator[Decoded[I, D], None]:
    """Yield `items`, decoded, in order; the next is begun while the caller has one.

    An error comes when its turn comes: the parts before it are whole. Whoever closes the generator
    early ends what was begun. The caller releases each part, or it is released at the next.

    Args:
        items: what to decode; closed by whoever made them.
        decode: holds what it yields until it is left; entered and left in different tasks.
        room: whether there is place for a part more than the one in use. Without, the next is
            begun when the caller asks for it.
    """

    async def begin() -> Decoded[I, D] | None:
        async for item in items:
            async with AsyncExitStack() as held:
                value = await held.enter_async_context(decode(item))
                return Decoded(item, value, held.pop_all())
        return None

    coming: asyncio.Task[Decoded[I, D] | None] | None = None
    current: Decoded[I, D] | None = None
    try:
        while True:
            current = await (coming or begin())
            if current is None:
                return
            coming = asyncio.create_task(begin()) if room() else None
            yield current
            await current.release()
    finally:
        if current is not None:
            await current.release()
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])
            if not coming.cancelled() and coming.exception() is None and coming.result():
                await coming.result().release()  # type: ignore[union-attr] # looked at just now
