"""Embedding spaces of collections, in Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from service.index import catalogue, embedding_spaces, video_records
from service.index.database import Database
from service.index.segment import Cut, NewSegment, require_length
from service.index.space import Space, SpaceContent
from service.index.vectors import Vectors
from service.index.video_records import Written

T = TypeVar("T")


class PostgresSpaces:
    """`SpaceIndex` over asyncpg.

    Args:
        database: whoever has it starts and stops it.
        vectors: of its segments; whoever has it starts and stops it.
    """

    def __init__(self, database: Database, *, vectors: Vectors) -> None:
        self._database = database
        self._vectors = vectors

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._database.run(work)

    async def _together(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run work in one transaction."""

        async def whole(connection: Any) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._run(whole)

    async def spaces(self, *, collection: str | None = None) -> Sequence[SpaceContent]:
        """Return the spaces that hold vectors of a collection, or of all, with their sizes."""
        return await self._run(lambda c: catalogue.contents(c, collection=collection))

    async def lacking(
        self, space: Space, *, collection: str, limit: int, after: str = ""
    ) -> Sequence[str]:
        """Return ids of videos that have vectors, but none in this space, in order."""
        return await self._run(
            lambda c: embedding_spaces.lacking(c, collection, space, limit=limit, after=after)
        )

    async def complete(self, space: Space, *, collection: str) -> bool:
        """Tell whether every video of a collection that has vectors has some in this space."""
        return not await self.lacking(space, collection=collection, limit=1)

    async def remaining(self, space: Space, *, collection: str) -> tuple[int, int]:
        """Return how many videos lack this space, and how many segments these have."""
        return await self._run(lambda c: embedding_spaces.remaining(c, collection, space))

    async def activate(
        self, space: Space | None, *, collection: str, without: Sequence[str] = ()
    ) -> None:
        """Make a space the one that is searched when none is named, at once and for all."""
        await self._together(
            lambda c: embedding_spaces.activate(c, collection, space, without=without)
        )

    async def active_space(self, collection: str) -> Space | None:
        """Return the space that is searched when none is named; None: that of the service."""
        return await self._run(lambda c: embedding_spaces.active(c, collection))

    async def pin(self, space: Space, *, collections: Sequence[str] | None = None) -> Sequence[str]:
        """Make collections that follow the service stay in a space, whatever is served later."""
        return await self._run(lambda c: embedding_spaces.pin(c, space, names=collections))

    async def unpin(self, collections: Sequence[str]) -> None:
        """Make collections follow the service again."""
        await self._run(lambda c: embedding_spaces.unpin(c, collections))

    async def cut(self, video_id: str) -> Cut | None:
        """Return how a video is cut in the active space, else in its newest; None: it is gone."""
        return await self._run(lambda c: embedding_spaces.cut(c, video_id))

    async def embed(self, video_id: str, *, space: Space, segments: Sequence[NewSegment]) -> bool:
        """Give a video of the index its segments in one more space; tell whether it needed them."""
        require_length(segments, space)

        async def work(connection: Any) -> Written | None:
            space_id = await catalogue.space_id(connection, space)
            async with self._vectors.writing(connection, space=space, space_id=space_id) as writer:
                return await video_records.embed(
                    connection, video_id, space_id=space_id, segments=segments, vectors=writer
                )

        written = await self._run(work)
        if written is None:
            return False
        self._vectors.grown(written.place, written.segments)
        return True

    async def remove_space(self, space: Space, *, collection: str) -> None:
        """Remove all vectors that a collection has in one space; its videos stay."""
        await self._together(lambda c: embedding_spaces.remove(c, collection, space))
        self._vectors.look()
