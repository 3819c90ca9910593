"""Builds the graphs of places that have grown large, in the background, while all goes on.

A graph is a partial index over one place: searches in it meet vectors of one collection and one
space and no others, and small collections need none. It is built without locking the table
(``CREATE INDEX CONCURRENTLY``), by one service at a time, and is rebuilt if its builder died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

import asyncpg

from service.index.database import LOCK, Database
from service.index.place import Place
from service.index.video_index import IndexUnavailableError

logger = logging.getLogger("vtag")

MAX_DIMENSIONS: Final = 4000  # of pgvector's HNSW on `halfvec`

_BUILDER: Final = 1  # with `LOCK`: the one who builds
_CLOSE_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 5.0  # while somebody else builds, or many videos are being loaded
_NODE_BYTES: Final = 700  # of the graph beside the vector, M = 16
_MIN_MEMORY_BYTES: Final = 64 * 1024 * 1024  # what Postgres takes anyway
_INDEX: Final = "segments_graph_{place.collection_id:d}_{place.space_id:d}"

_WANTED: Final = """
    SELECT t.collection_id, t.space_id, p.dimensions, t.videos, t.segments,
           coalesce(t.loads_until > now(), false) AS loads
    FROM contents t JOIN spaces p ON p.id = t.space_id
    WHERE t.segments > $1 AND p.dimensions <= $2 AND NOT EXISTS (
        SELECT FROM pg_index WHERE indisvalid AND indexrelid =
            to_regclass(format('segments_graph_%s_%s', t.collection_id, t.space_id)))
    ORDER BY t.segments
"""
_LARGE: Final = "SELECT collection_id, space_id FROM contents WHERE segments > $1"
_ORPHANS: Final = r"""
    SELECT relname FROM pg_class i WHERE relkind = 'i' AND relname ~ '^segments_graph_\d+_\d+$'
    AND relnamespace = current_schema()::regnamespace AND NOT EXISTS (
        SELECT FROM contents t
        WHERE i.relname = format('segments_graph_%s_%s', t.collection_id, t.space_id))
"""


class Graphs:
    """Watches how places grow.

    Args:
        database: started before `start`.
        exact_segments: places of up to so many segments need no graph.
        memory_bytes: that building one may take; a graph that needs more is built slower.
    """

    def __init__(self, database: Database, *, exact_segments: int, memory_bytes: int) -> None:
        self._database = database
        self._exact_segments = exact_segments
        self._memory_bytes = memory_bytes
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._known: set[tuple[int, int]] = set()

    def start(self) -> None:
        """Look now, and whenever `grown` says so."""
        self._look.set()
        self._task = asyncio.create_task(self._watch(), name="graphs")

    async def stop(self) -> None:
        """End what is being built: the next start begins it anew. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def grown(self, place: tuple[int, int], segments: int) -> None:
        """Take notice of how many segments a place has by now."""
        if segments > self._exact_segments and place not in self._known:
            self.look()

    def look(self) -> None:
        """Look soon for what is missing or left over."""
        self._look.set()

    async def build(self, *, at_once: bool = False) -> bool:
        """Build what is missing and remove what is left over.

        Args:
            at_once: even while more is being loaded.

        Returns:
            False: somebody else builds, or waits for more.

        Raises:
            IndexUnavailableError, asyncpg.PostgresError: it was not to be.
        """
        connection = await self._database.connect()
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCK, _BUILDER):
                return False
            for row in await connection.fetch(_ORPHANS):
                await connection.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{row["relname"]}"')
            is_done = True
            for row in await connection.fetch(_WANTED, self._exact_segments, MAX_DIMENSIONS):
                if row["loads"] and not at_once:
                    is_done = False
                    continue
                collection_id, space_id, dimensions, videos, segments, _ = row
                await self._build(
                    connection,
                    Place(collection_id, space_id, dimensions, videos, segments, has_graph=False),
                )
            if is_done:
                large = await connection.fetch(_LARGE, self._exact_segments)
                self._known = {tuple(row) for row in large}
            return is_done
        finally:
            # A server that is gone must not keep us: its side of the connection ends by itself.
            with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError):
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _build(self, connection: Any, place: Place) -> None:
        name = _INDEX.format(place=place)
        logger.info("building a graph", extra={"graph": name, "segments": place.segments})
        needed = place.segments * (2 * place.dimensions + _NODE_BYTES) * 5 // 4
        memory = max(_MIN_MEMORY_BYTES, min(self._memory_bytes, needed))
        await connection.execute(f"SET maintenance_work_mem = '{memory // 1024:d}kB'")
        # One of this name that is there was not finished.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        try:
            await connection.execute(create_index(place))
        except asyncpg.DiskFullError:
            # Several processes build in /dev/shm, of which containers have 64 MB by default.
            logger.info("building a graph with one process", extra={"graph": name})
            await connection.execute("SET max_parallel_maintenance_workers = 0")
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            await connection.execute(create_index(place))

    async def _watch(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            try:
                is_done = await self.build()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                logger.warning("a graph was not built: %s", type(error).__name__)
                is_done = False
            except IndexUnavailableError:
                is_done = False
            if not is_done:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._look.set()


def create_index(place: Place) -> str:
    """Return the statement for the graph of a place (M and ef_construction as measured)."""
    return (
        f"CREATE INDEX CONCURRENTLY {_INDEX.format(place=place)} ON segments"
        f" USING hnsw ((embedding::halfvec({place.dimensions:d})) halfvec_ip_ops)"
        f" WITH (m = 16, ef_construction = 128)"
        f" WHERE collection_id = {place.collection_id:d} AND space_id = {place.space_id:d}"
    )
