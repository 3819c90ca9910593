"""What Milvus still has to be told: removed a little after Postgres, and repaired after a crash.

Three tables say it, each changed in the transaction that makes it so: writes that never committed,
vectors whose segments were removed, and videos of which filters see former facts. Until they are
settled nothing wrong is found: only rows of Postgres are, and videos that changed are looked at
whatever Milvus says of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import asyncpg

from service.index.database import Database
from service.index.milvus import WRITE_SECONDS, Milvus
from service.index.milvus_writer import NUMBERS, filterable
from service.index.video_index import IndexUnavailableError

logger = logging.getLogger("vtag")

_EVERY_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 5.0  # after a failure
_AT_ONCE: Final = 1000  # vectors
_VIDEOS_AT_ONCE: Final = 50
# A write whose transaction is gone: whoever died with it cannot be writing to Milvus any more.
_DEAD_SECONDS: Final = 4 * WRITE_SECONDS
_FIELDS: Final = (
    *("id", "collection_id", "video_id", "ordinal", "start_seconds", "end_seconds"),
    *("external_id", "metadata", "created_at", "vector"),
)


class MilvusDebts:
    """Settles them in the background, by one service at a time for each.

    Args:
        database: of the tables.
        milvus: that is told.
        name: number of a space -> name of its Milvus collection.
        dead_seconds: age of a write that nobody holds and that is taken for dead.
    """

    def __init__(
        self,
        database: Database,
        milvus: Milvus,
        *,
        name: Callable[[int], str],
        dead_seconds: float = _DEAD_SECONDS,
    ) -> None:
        self._database = database
        self._milvus = milvus
        self._name = name
        self._dead_seconds = dead_seconds
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Settle now, when `look` says so, and now and then."""
        self._look.set()
        self._task = asyncio.create_task(self._watch(), name="milvus-debts")

    async def stop(self) -> None:
        """End; what is left is settled after the next start. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def look(self) -> None:
        """Settle soon."""
        self._look.set()

    async def settle(self) -> None:
        """Settle all that there is.

        Raises:
            IndexUnavailableError: one of the two does not answer; the rest is left for later.
        """
        for step in (self._writes, self._removals, self._changes):
            while await self._together(step):
                pass

    async def _together(self, step: Callable[[Any], Any]) -> bool:
        async def whole(connection: Any) -> bool:
            async with connection.transaction():
                return bool(await step(connection))

        return await self._database.run(whole)

    async def _writes(self, connection: Any) -> bool:
        # Those of living transactions are locked.
        rows = await connection.fetch(
            "DELETE FROM vector_writes WHERE id IN (SELECT id FROM vector_writes"
            " WHERE since <= now() - make_interval(secs => $1) ORDER BY id LIMIT $2"
            " FOR UPDATE SKIP LOCKED) RETURNING id, space_id",
            self._dead_seconds,
            _AT_ONCE,
        )
        for row in rows:
            first = row["id"] * NUMBERS
            await self._milvus.remove(
                self._name(row["space_id"]), f"id >= {first:d} and id < {first + NUMBERS:d}"
            )
        return len(rows) == _AT_ONCE

    async def _removals(self, connection: Any) -> bool:
        rows = await connection.fetch(
            "DELETE FROM vector_removals WHERE vector_id IN (SELECT vector_id FROM vector_removals"
            " ORDER BY vector_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING vector_id, space_id",
            _AT_ONCE,
        )
        grouped: defaultdict[int, list[int]] = defaultdict(list)
        for row in rows:
            grouped[row["space_id"]].append(row["vector_id"])
        for space_id, numbers in grouped.items():
            await self._milvus.remove(self._name(space_id), f"id in {numbers}")
        return len(rows) == _AT_ONCE

    async def _changes(self, connection: Any) -> bool:
        """Bring some videos up to date; tell whether there were any."""
        # A video is locked before its debt, as by whoever changes it, and until all is done.
        videos = await connection.fetch(
            "SELECT v.id, v.external_id, v.metadata, v.created_at FROM videos v"
            " WHERE v.id IN (SELECT video_id FROM vector_changes) LIMIT $1"
            " FOR NO KEY UPDATE SKIP LOCKED",
            _VIDEOS_AT_ONCE,
        )
        if not videos:
            # What is left is of videos that are gone, whose vectors go too; or somebody is at it.
            await connection.execute(
                "DELETE FROM vector_changes c"
                " WHERE NOT EXISTS (SELECT FROM videos v WHERE v.id = c.video_id)"
            )
            return False
        facts = {video["id"]: filterable(video) for video in videos}
        ids = list(facts)
        await connection.execute("DELETE FROM vector_changes WHERE video_id = ANY($1::text[])", ids)
        rows = await connection.fetch(
            "SELECT s.space_id, s.vector_id, p.dimensions FROM segments s"
            " JOIN spaces p ON p.id = s.space_id"
            " WHERE s.video_id = ANY($1::text[]) AND s.vector_id IS NOT NULL",
            ids,
        )
        for start in range(0, len(rows), _AT_ONCE):
            grouped: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
            for row in rows[start : start + _AT_ONCE]:
                grouped[row["space_id"], row["dimensions"]].append(row["vector_id"])
            for (space_id, dimensions), numbers in grouped.items():
                name = self._name(space_id)
                found = await self._milvus.read(name, f"id in {numbers}", fields=_FIELDS)
                await self._milvus.write(
                    name, [each | facts[each["video_id"]] for each in found], dimensions=dimensions
                )
        return True

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), _EVERY_SECONDS)
            self._look.clear()
            try:
                await self.settle()
            except IndexUnavailableError:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._look.set()
            except asyncpg.PostgresError as error:
                logger.warning("Milvus was not told: %s", type(error).__name__)
                await asyncio.sleep(_AGAIN_SECONDS)
                self._look.set()
