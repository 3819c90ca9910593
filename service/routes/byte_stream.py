"""An answer of bytes that are read while they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class ByteStream(Response):
    """Bytes from a generator, whose reading keeps pace with the client's.

    When the client leaves, or takes nothing for `stall_seconds`, the generator is closed.

    Args:
        first: the bytes that are there already: what fails before is an answer of its own.
        rest: the others.
        size: of all of them.
        status: 200 or 206.
        headers: of the answer.
        held: closed after the last byte, whatever happens: places, files.
        stall_seconds: longest time that one chunk may take to be sent.
        gone: called when the client left before the end.
    """

    def __init__(
        self,
        first: bytes,
        rest: AsyncGenerator[bytes, None],
        *,
        size: int,
        status: int,
        headers: Mapping[str, str],
        held: AsyncExitStack,
        stall_seconds: float,
        gone: Callable[[], None],
    ) -> None:
        super().__init__(status_code=status, headers={**headers, "Content-Length": str(size)})
        self._first = first
        self._rest = rest
        self._held = held
        self._stall_seconds = stall_seconds
        self._gone = gone

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes."""
        watch = asyncio.ensure_future(_disconnect(receive))
        try:
            async with self._held:
                try:
                    await send(
                        {
                            "type": "http.response.start",
                            "status": self.status_code,
                            "headers": self.raw_headers,
                        }
                    )
                    await self._send(send, self._first)
                    async for chunk in self._rest:
                        if watch.done():
                            self._gone()
                            return
                        await self._send(send, chunk)
                    await self._send(send, b"", more=False)
                except (OSError, TimeoutError):  # it does not read any more
                    self._gone()
                finally:
                    await self._rest.aclose()
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._stall_seconds):
            await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
