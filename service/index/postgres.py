"""The index in Postgres, ours or any server by DSN; its vectors there too, or in Milvus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.index import bulk, catalogue, video_records
from service.index.change import Scalar, VideoChange
from service.index.collection import DEFAULT_COLLECTION, Collection, CollectionMissingError
from service.index.database import Database
from service.index.embedded import EmbeddedPostgres
from service.index.milvus import Milvus
from service.index.milvus_vectors import MilvusVectors
from service.index.postgres_spaces import PostgresSpaces
from service.index.postgres_vectors import PostgresVectors
from service.index.segment import require_length
from service.index.space import Space
from service.index.vectors import Vectors
from service.index.video_index import (
    Batch,
    Hit,
    NewSegment,
    NewVideo,
    StoredVideo,
    Vector,
)
from service.index.video_records import VIDEO, Written, stored
from service.index.wish import Wish


class PostgresIndex(PostgresSpaces):
    """`VideoIndex` over asyncpg.

    Args:
        dsn: a server with pgvector, or an embedded one that is started and stopped with the index.
        exact_segments: up to this many segments in a space a search compares all of them.
        graph_memory_bytes: that the building of a graph may take.
        milvus: where the vectors are, if they are not in the same database; started and stopped
            with the index, and it has the graphs then.
    """

    def __init__(
        self,
        dsn: str | EmbeddedPostgres,
        *,
        exact_segments: int = 10_000,
        graph_memory_bytes: int = 1024**3,
        milvus: Milvus | None = None,
    ) -> None:
        database = Database(dsn)
        vectors: Vectors
        if milvus is not None:
            vectors = MilvusVectors(database, milvus)
        else:
            vectors = PostgresVectors(
                database, exact_segments=exact_segments, graph_memory_bytes=graph_memory_bytes
            )
        super().__init__(database, vectors=vectors)

    @property
    def database(self) -> Database:
        """The connections, for whatever else is kept in the same place."""
        return self._database

    @property
    def vectors(self) -> Vectors:
        """What holds the vectors of its segments."""
        return self._vectors

    async def start(self) -> None:
        """Start the embedded server if there is one, upgrade its schema, open connections."""
        await self._database.start()
        await self._vectors.start()

    async def close(self) -> None:
        """Close the connections, then the embedded server."""
        await self._vectors.close()
        await self._database.close()

    async def ping(self) -> None:
        """Return if it answers."""
        await self._run(lambda connection: connection.fetchval("SELECT 1", timeout=5))
        await self._vectors.ping()

    async def create_collection(self, name: str) -> Collection:
        """Make an empty collection."""
        await self._run(lambda c: catalogue.create(c, name))
        made = await self.collection(name)
        if made is None:  # removed by somebody else in between
            raise CollectionMissingError(name)
        return made

    async def collection(self, name: str) -> Collection | None:
        """Return one collection."""
        found = await self._run(lambda c: catalogue.collections(c, name=name))
        return found[0] if found else None

    async def collections(self) -> Sequence[Collection]:
        """Return all collections, by name."""
        return await self._run(lambda c: catalogue.collections(c, name=None))

    async def delete_collection(self, name: str) -> bool:
        """Remove a collection with all its videos; tell whether it was there."""
        was_there = await self._run(lambda c: catalogue.delete(c, name))
        self._vectors.look()
        return was_there

    async def _one(self, condition: str, *values: object) -> StoredVideo | None:
        row = await self._run(lambda c: c.fetchrow(f"{VIDEO} WHERE {condition}", *values))
        return None if row is None else stored(row)

    async def find(
        self, sha256: str, *, collection: str = DEFAULT_COLLECTION
    ) -> StoredVideo | None:
        """Return the video of a collection that has this content."""
        return await self._one("c.name = $1 AND v.sha256 = $2", collection, sha256)

    async def get(self, video_id: str) -> StoredVideo | None:
        """Return one video."""
        return await self._one("v.id = $1", video_id)

    async def list(
        self,
        *,
        limit: int,
        before: str | None,
        external_id: str | None,
        collection: str = DEFAULT_COLLECTION,
    ) -> Sequence[StoredVideo]:
        """Return videos of a collection, newest first, older than the id ``before``."""
        rows = await self._run(
            lambda c: c.fetch(
                f"{VIDEO} WHERE c.name = $4"
                " AND ($1::text IS NULL OR v.id < $1)"
                " AND ($2::text IS NULL OR v.external_id = $2) ORDER BY v.id DESC LIMIT $3",
                before,
                external_id,
                limit,
                collection,
            )
        )
        return [stored(row) for row in rows]

    async def update(
        self, video_id: str, *, external_id: str | None, metadata: Mapping[str, Scalar] | None
    ) -> StoredVideo | None:
        """Change what is not None and different; return the video, or None if there is none."""
        whole = None if metadata is None else dict(metadata)
        await self._run(
            lambda c: video_records.replace(c, video_id, external_id=external_id, metadata=whole)
        )
        self._vectors.changed()
        return await self.get(video_id)

    async def change(
        self, video_id: str, wanted: VideoChange, *, version: int | None
    ) -> StoredVideo | None:
        """Merge a change into a video; return it, or None if there is none."""

        async def work(connection: Any) -> StoredVideo | None:
            if not await video_records.change(connection, video_id, version=version, wanted=wanted):
                return None
            # In the same transaction: what is answered is what this change made of it.
            return stored(await connection.fetchrow(f"{VIDEO} WHERE v.id = $1", video_id))

        changed = await self._together(work)
        self._vectors.changed()
        return changed

    async def add(
        self, video: NewVideo, *, space: Space, segments: Sequence[NewSegment]
    ) -> tuple[StoredVideo, bool]:
        """Write a video and its segments in one space, all or nothing."""
        require_length(segments, space)

        async def work(connection: Any) -> Written:
            space_id = await catalogue.space_id(connection, space)
            async with self._vectors.writing(connection, space=space, space_id=space_id) as writer:
                return await video_records.write(
                    connection, video, space_id=space_id, segments=segments, vectors=writer
                )

        written = await self._run(work)
        self._vectors.grown(written.place, written.segments)
        found = await self.find(video.sha256, collection=video.collection)
        if found is None:  # deleted by somebody else in between: as if it had come later
            return await self.add(video, space=space, segments=segments)
        return found, written.created

    async def add_many(self, batch: Batch, *, space: Space) -> Sequence[bool]:
        """Write many videos and their segments in one space at once, all or nothing."""
        if not batch:
            return []
        for _, segments in batch:
            require_length(segments, space)

        async def work(connection: Any) -> Sequence[bool]:
            space_id = await catalogue.space_id(connection, space)
            async with self._vectors.writing(connection, space=space, space_id=space_id) as writer:
                created, sizes = await bulk.write(
                    connection, batch, space_id=space_id, vectors=writer
                )
            for place, segments in sizes.items():
                self._vectors.grown(place, segments)
            return created

        return await self._run(work)

    async def build_graphs(self) -> None:
        """Return when search in large collections is as fast as it gets."""
        await self._vectors.build()

    async def delete(self, video_id: str, *, version: int | None) -> bool:
        """Remove a video with everything it has; tell whether it was there."""
        was_there = await self._together(
            lambda c: video_records.remove(c, video_id, version=version)
        )
        self._vectors.changed()
        return was_there

    async def embeddings(self, video_ids: Sequence[str], *, space: Space) -> Mapping[str, Vector]:
        """Return video id -> the vectors of its segments in one space, float32 (segments, D)."""
        return await self._vectors.embeddings(video_ids, space=space)

    async def search(
        self,
        query: Vector,
        *,
        space: Space,
        wish: Wish,
        collection: str = DEFAULT_COLLECTION,
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first."""
        return await self._vectors.search(query, space=space, wish=wish, collection=collection)
