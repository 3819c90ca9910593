"""Who may call the encoder next: requests before work in the background, one call at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

PATIENCE_SECONDS: Final = 2.0


class Turns:
    """A lock with two kinds of holders.

    Requests get it in order of arrival. A call in the background gets it when no request waits,
    or when it has waited `patience_seconds` itself: so a request waits for one such call at most,
    and requests that never pause lose one call in so many seconds to the background, not more.

    Args:
        patience_seconds: longest time that the background stands back.
    """

    def __init__(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._lock = asyncio.Lock()
        self._patience_seconds = patience_seconds
        self._requests = 0
        self._quiet = asyncio.Event()
        self.background_calls = 0
        """Calls of the background so far."""
        self.background_seconds = 0.0
        """How long they held the encoder."""

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Hold the turn for a request."""
        self._requests += 1
        try:
            await self._lock.acquire()
        finally:
            self._requests -= 1
            self._tell()
        try:
            yield
        finally:
            self._lock.release()
            self._tell()

    @asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Hold the turn for work that nobody waits for."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                while self._lock.locked() or self._requests:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass  # from now on it is in line as a request is
        await self._lock.acquire()
        began = time.monotonic()
        try:
            yield
        finally:
            self.background_calls += 1
            self.background_seconds += time.monotonic() - began
            self._lock.release()
            self._tell()

    def _tell(self) -> None:
        if not self._requests and not self._lock.locked():
            self._quiet.set()
