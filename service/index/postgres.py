"""The index in Postgres with pgvector: ours, or any server by DSN; the same SQL."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar

from service.ids import new_id
from service.index import nearest
from service.index.database import LOCK, Database
from service.index.embedded import EmbeddedPostgres
from service.index.video_index import (
    Hit,
    NewSegment,
    NewVideo,
    Scalar,
    Space,
    SpaceContent,
    StoredVideo,
    Vector,
    VersionMismatchError,
)

T = TypeVar("T")

_MAX_INDEXED_DIMENSIONS: Final = 2000  # pgvector's HNSW on `vector`

_VIDEO: Final = """
    SELECT v.*,
        (SELECT count(*) FROM segments s WHERE s.video_id = v.id) AS segments,
        ARRAY(SELECT p.name || '@' || p.revision || '/' || trim_scale(p.clip_weight)
              FROM spaces p
              WHERE EXISTS (SELECT FROM segments s WHERE s.video_id = v.id AND s.space_id = p.id)
              ORDER BY p.id) AS spaces
    FROM videos v
"""


class PostgresIndex:
    """`VideoIndex` over asyncpg.

    Args:
        dsn: a server with pgvector, or an embedded one that is started and stopped with the index.
        exact_segments: up to this many segments in a space a search compares all of them.
    """

    def __init__(self, dsn: str | EmbeddedPostgres, *, exact_segments: int = 10_000) -> None:
        self._database = Database(dsn)
        self._exact_segments = exact_segments
        self._counted: tuple[float, Sequence[SpaceContent]] = (-math.inf, ())

    async def start(self) -> None:
        """Start the embedded server if there is one, create what is missing, open connections."""
        await self._database.start()

    async def close(self) -> None:
        """Close the connections, then the embedded server."""
        await self._database.close()

    async def ping(self) -> None:
        """Return if it answers."""
        await self._run(lambda connection: connection.fetchval("SELECT 1", timeout=5))

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._database.run(work)

    async def _one(self, condition: str, *values: object) -> StoredVideo | None:
        row = await self._run(lambda c: c.fetchrow(f"{_VIDEO} WHERE {condition}", *values))
        return None if row is None else _video(row)

    async def find(self, sha256: str) -> StoredVideo | None:
        """Return the video with this content."""
        return await self._one("v.sha256 = $1", sha256)

    async def get(self, video_id: str) -> StoredVideo | None:
        """Return one video."""
        return await self._one("v.id = $1", video_id)

    async def list(
        self, *, limit: int, before: str | None, external_id: str | None
    ) -> Sequence[StoredVideo]:
        """Return videos, newest first, older than the id ``before``."""
        rows = await self._run(
            lambda c: c.fetch(
                f"{_VIDEO} WHERE ($1::text IS NULL OR v.id < $1)"
                " AND ($2::text IS NULL OR v.external_id = $2) ORDER BY v.id DESC LIMIT $3",
                before,
                external_id,
                limit,
            )
        )
        return [_video(row) for row in rows]

    async def update(
        self, video_id: str, *, external_id: str | None, metadata: Mapping[str, Scalar] | None
    ) -> StoredVideo | None:
        """Change what is not None and different; return the video, or None if there is none."""
        await self._run(
            lambda c: c.execute(
                "UPDATE videos SET version = version + 1, external_id = coalesce($2, external_id),"
                " metadata = coalesce($3, metadata) WHERE id = $1"
                " AND (external_id IS DISTINCT FROM coalesce($2, external_id)"
                "      OR metadata IS DISTINCT FROM coalesce($3, metadata))",
                video_id,
                external_id,
                None if metadata is None else dict(metadata),
            )
        )
        return await self.get(video_id)

    async def add(
        self, video: NewVideo, *, space: Space, segments: Sequence[NewSegment]
    ) -> tuple[StoredVideo, bool]:
        """Write a video and its segments in one space, all or nothing."""

        async def work(connection: Any) -> bool:
            space_id = await self._space_id(connection, space)
            async with connection.transaction():
                return await _write(connection, video, space_id=space_id, segments=segments)

        created = await self._run(work)
        self._counted = (-math.inf, ())
        stored = await self.find(video.sha256)
        if stored is None:  # deleted by somebody else in between: as if it had come later
            return await self.add(video, space=space, segments=segments)
        return stored, created

    async def _space_id(self, connection: Any, space: Space) -> int:
        """Return the number of a space; a new one gets its row and its vector index together."""
        key = (space.name, space.revision, Decimal(f"{space.clip_weight:.4f}"))
        query = (
            "SELECT id FROM spaces WHERE (name, revision, clip_weight) = ($1::text, $2::text, $3)"
        )
        found = await connection.fetchval(query, *key)
        if found is not None:
            return int(found)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            found = await connection.fetchval(query, *key)
            if found is None:
                found = await connection.fetchval(
                    "INSERT INTO spaces (name, revision, clip_weight, dimensions)"
                    " VALUES ($1, $2, $3, $4) RETURNING id",
                    *key,
                    space.dimensions,
                )
                if space.dimensions <= _MAX_INDEXED_DIMENSIONS:
                    await connection.execute(nearest.create_index(int(found), space.dimensions))
            return int(found)

    async def delete(self, video_id: str, *, version: int | None) -> bool:
        """Remove a video with everything it has; tell whether it was there."""
        gone = await self._run(
            lambda c: c.fetchval(
                "DELETE FROM videos WHERE id = $1 AND ($2::int IS NULL OR version = $2)"
                " RETURNING id",
                video_id,
                version,
            )
        )
        self._counted = (-math.inf, ())
        if gone is None and version is not None and await self.get(video_id) is not None:
            raise VersionMismatchError
        return gone is not None

    async def spaces(self, *, max_age_seconds: float = 0.0) -> Sequence[SpaceContent]:
        """Return the spaces that hold vectors, with their sizes as of ``max_age_seconds`` ago.

        Counting reads every row, so what was counted is kept until this process writes.
        """
        counted_at, content = self._counted
        began = time.monotonic()
        if began - counted_at < max_age_seconds:
            return content
        rows = await self._run(
            lambda c: c.fetch(
                "SELECT p.*, count(DISTINCT s.video_id) AS videos, count(*) AS segments"
                " FROM spaces p JOIN segments s ON s.space_id = p.id GROUP BY p.id ORDER BY p.id"
            )
        )
        content = [SpaceContent(_space(row), row["videos"], row["segments"]) for row in rows]
        self._counted = (began, content)
        return content

    async def search(
        self,
        query: Vector,
        *,
        space: Space,
        top_k: int,
        group_by: Literal["video", "segment"],
        per_video: int,
        min_cosine: float,
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first."""

        async def work(connection: Any) -> Sequence[Hit]:
            row = await connection.fetchrow(
                "SELECT id, dimensions FROM spaces"
                " WHERE (name, revision, clip_weight) = ($1::text, $2::text, $3)",
                space.name,
                space.revision,
                Decimal(f"{space.clip_weight:.4f}"),
            )
            if row is None:
                return []
            wish = nearest.Wish(top_k, group_by, per_video, min_cosine)
            return await nearest.search(
                connection,
                query,
                space_id=row["id"],
                dimensions=row["dimensions"],
                wish=wish,
                exact_segments=self._exact_segments,
            )

        return await self._run(work)


async def _write(
    connection: Any, video: NewVideo, *, space_id: int, segments: Sequence[NewSegment]
) -> bool:
    video_id = await connection.fetchval(
        "INSERT INTO videos (id, sha256, size_bytes, external_id, metadata, duration_seconds, fps,"
        " width, height, codec) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (sha256) DO NOTHING RETURNING id",
        new_id("vid"), video.sha256, video.size_bytes, video.external_id,
        dict(video.metadata or {}), video.duration_seconds, video.fps, video.width, video.height,
        video.codec,
    )  # fmt: skip
    created = video_id is not None
    if not created:
        # Lock the row: two uploads of the same film must not both add the segments of a space.
        video_id = await connection.fetchval(
            "SELECT id FROM videos WHERE sha256 = $1 FOR UPDATE", video.sha256
        )
        taken = await connection.fetchval(
            "SELECT 1 FROM segments WHERE video_id = $1 AND space_id = $2 LIMIT 1",
            video_id,
            space_id,
        )
        if video_id is None or taken is not None:
            return False
        await connection.execute(
            "UPDATE videos SET version = version + 1, external_id = coalesce($2, external_id),"
            " metadata = coalesce($3, metadata) WHERE id = $1",
            video_id,
            video.external_id,
            None if video.metadata is None else dict(video.metadata),
        )
    await connection.copy_records_to_table(
        "segments",
        columns=[
            "space_id",
            "video_id",
            "ordinal",
            "start_seconds",
            "end_seconds",
            "embedding",
        ],
        records=[
            (space_id, video_id, number, each.start_seconds, each.end_seconds, each.vector)
            for number, each in enumerate(segments)
        ],
    )
    return created


def _space(row: Any) -> Space:
    return Space(row["name"], row["revision"], float(row["clip_weight"]), row["dimensions"])


def _video(row: Any) -> StoredVideo:
    values = {**row, "spaces": tuple(row["spaces"])}
    return StoredVideo(**values)
