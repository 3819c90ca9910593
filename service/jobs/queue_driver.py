"""Our database as the queue library wants it: while it is away, statements wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar

import asyncpg
from pgqueuer.core.tm import TaskManager
from pgqueuer.ports.driver import Driver, NotifyCallback

from service.index.database import Database
from service.index.video_index import IndexUnavailableError

logger = logging.getLogger("vtag.jobs")

T = TypeVar("T")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LAST_PAUSE_SECONDS: Final = 5.0
_PROBE_SECONDS: Final = 10.0


class QueueDriver(Driver):
    """A driver of pgqueuer over `Database`.

    The library ends its loop at the first statement that fails, but only once all jobs have ended:
    it would take no new one for hours. So nothing fails here before `give_up`.

    Args:
        database: started.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._given_up = False
        self._shutdown = asyncio.Event()
        self._tasks = TaskManager()
        self._listening: dict[str, asyncio.Task[None]] = {}

    def give_up(self) -> None:
        """From now on statements fail while the database is away: the service stops."""
        self._given_up = True

    async def close(self) -> None:
        """Stop listening; safe to call twice."""
        tasks = list(self._listening.values())
        self._listening.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run a query and return its rows.

        Raises:
            IndexUnavailableError: the database is away, and `give_up` was called.
        """
        rows = await self._insist(lambda c: c.fetch(query, *args))
        return [dict(row) for row in rows]

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement and return its status; raises as `fetch`."""
        return str(await self._insist(lambda c: c.execute(query, *args)))

    async def notify(self, channel: str, payload: str) -> None:
        """Send a notification; raises as `fetch`."""
        await self._insist(lambda c: c.execute("SELECT pg_notify($1, $2)", channel, payload))

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Hand notifications on, over a connection that is opened again when it is lost.

        What comes in between is missed: who waits looks for itself every few seconds.
        """
        before = self._listening.pop(channel, None)
        if before is not None:  # of a loop that failed, and began anew
            before.cancel()
        work = self._listen(channel, callback)
        self._listening[channel] = asyncio.create_task(work, name="listen")

    @property
    def shutdown(self) -> asyncio.Event:
        """Part of the library's protocol; nothing here sets it."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """Part of the library's protocol."""
        return self._tasks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing: two loops of the library use this driver, and each ends for itself."""

    async def _insist(self, work: Callable[[Any], Awaitable[T]]) -> T:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._database.run(work, plain=True)
            except IndexUnavailableError:
                if self._given_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _listen(self, channel: str, callback: NotifyCallback) -> None:
        while True:
            with contextlib.suppress(IndexUnavailableError):
                await self._hear(channel, callback)
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    async def _hear(self, channel: str, callback: NotifyCallback) -> None:
        """Listen until the connection is lost."""
        connection = await self._database.connect()
        try:
            await connection.add_listener(channel, lambda *parts: callback(parts[-1]))
            while True:  # a server that vanished without a word would never be missed
                await asyncio.sleep(_PROBE_SECONDS)
                await connection.execute("SELECT 1", timeout=_PROBE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.info("listening for jobs begins anew: %s", type(error).__name__)
        finally:
            connection.terminate()
