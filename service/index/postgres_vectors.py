"""Vectors in the database itself, in the rows of their segments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from service.index import catalogue, nearest
from service.index.database import Database
from service.index.graphs import Graphs
from service.index.segment import Vector
from service.index.space import Space
from service.index.vectors import SegmentRow, VectorWriter
from service.index.video_index import Hit, IndexUnavailableError
from service.index.wish import Wish

_AGAIN_SECONDS: Final = 1.0  # while another service builds


class RowWriter:
    """`VectorWriter` by COPY, on a connection that is in a transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def write(self, rows: Sequence[SegmentRow]) -> None:
        """Write segments with their vectors."""
        await self._connection.copy_records_to_table(
            "segments", columns=SegmentRow._fields, records=rows
        )


class PostgresVectors:
    """`Vectors` with pgvector.

    Args:
        database: whoever has it starts and stops it.
        exact_segments: up to this many segments in a space a search compares all of them.
        graph_memory_bytes: that the building of a graph may take.
    """

    def __init__(self, database: Database, *, exact_segments: int, graph_memory_bytes: int) -> None:
        self._database = database
        self._exact_segments = exact_segments
        self._graphs = Graphs(
            database, exact_segments=exact_segments, memory_bytes=graph_memory_bytes
        )

    async def start(self) -> None:
        """Begin to watch how places grow."""
        await self._database.run(lambda c: catalogue.keep_vectors(c, "postgres"))
        self._graphs.start()

    async def close(self) -> None:
        """End what is being built."""
        await self._graphs.stop()

    async def ping(self) -> None:
        """The database is all there is."""

    @asynccontextmanager
    async def writing(
        self, connection: Any, *, space: Space, space_id: int
    ) -> AsyncIterator[VectorWriter]:
        """Open a transaction on a connection, for writes in one space."""
        del space, space_id  # rows say it themselves
        async with connection.transaction():
            yield RowWriter(connection)

    def grown(self, place: tuple[int, int], segments: int) -> None:
        """Take notice of how many segments a place has by now."""
        self._graphs.grown(place, segments)

    def look(self) -> None:
        """Look soon for graphs that are left over."""
        self._graphs.look()

    def changed(self) -> None:
        """Filters look at the rows of videos: there is nothing to be brought up to date."""

    async def build(self) -> None:
        """Return when all graphs that are wanted are there.

        Raises:
            IndexUnavailableError: the database is gone, or has no room for them.
        """
        try:
            while not await self._graphs.build(at_once=True):
                await asyncio.sleep(_AGAIN_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise IndexUnavailableError from error

    async def embeddings(self, video_ids: Sequence[str], *, space: Space) -> Mapping[str, Vector]:
        """Return video id -> the vectors of its segments in one space, float32 (segments, D)."""
        return await self._database.run(
            lambda c: nearest.embeddings(c, video_ids, key=catalogue.space_key(space)),
        )

    async def search(
        self, query: Vector, *, space: Space, wish: Wish, collection: str
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first."""

        async def work(connection: Any) -> Sequence[Hit]:
            place = await catalogue.place(connection, collection, space)
            if place is None:
                return []
            return await nearest.search(
                connection, query, place=place, wish=wish, exact_segments=self._exact_segments
            )

        return await self._database.run(work)
