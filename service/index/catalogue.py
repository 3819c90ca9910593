"""The SQL of collections and spaces: which there are, and how much each collection holds of each.

Figures are kept in ``contents`` and change with the rows that they count. Whoever writes takes its
locks in one order, so that writers wait for each other and never for ever: the collection, then
the video, then ``contents`` by space.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import asyncpg

from service.index.collection import (
    Collection,
    CollectionExistsError,
    CollectionMissingError,
)
from service.index.database import LOCK
from service.index.place import Place
from service.index.space import Space, SpaceContent
from service.index.video_index import IndexSetupError

_SPACE: Final = (
    "SELECT id FROM spaces WHERE (name, revision, clip_weight) = ($1::text, $2::text, $3)"
)
_ELSEWHERE: Final = {
    "postgres": "VTAG_VECTOR_URL: unset, but the vectors of {segments} segments are in Milvus",
    "milvus": "VTAG_VECTOR_URL: set, but the vectors of {segments} segments are in Postgres; index"
    " their videos anew in an empty database, or unset it",
}
_DELETE_SECONDS: Final = 3600.0  # a collection is as large as it is; nobody waits for this lock


async def create(connection: Any, name: str) -> None:
    """Write a new, empty collection.

    Raises:
        CollectionExistsError: the name is taken.
    """
    try:
        await connection.execute("INSERT INTO collections (name) VALUES ($1)", name)
    except asyncpg.UniqueViolationError:
        raise CollectionExistsError(name) from None


async def collections(connection: Any, *, name: str | None) -> Sequence[Collection]:
    """Return one collection, or all by name, with what they hold."""
    rows = await connection.fetch(
        "SELECT c.name AS collection, c.created_at, p.*, t.videos, t.segments,"
        " to_jsonb(a) AS active,"
        " (SELECT count(*) FROM videos v WHERE v.collection_id = c.id) AS all_videos"
        " FROM collections c LEFT JOIN (contents t JOIN spaces p ON p.id = t.space_id)"
        " ON t.collection_id = c.id AND t.segments > 0"
        " LEFT JOIN spaces a ON a.id = c.active_space_id"
        " WHERE $1::text IS NULL OR c.name = $1 ORDER BY c.name, p.id",
        name,
    )
    found: dict[str, Collection] = {}
    for row in rows:
        known = found.get(row["collection"])
        contents = () if known is None else known.contents
        if row["id"] is not None:
            contents = (*contents, SpaceContent(space_of(row), row["videos"], row["segments"]))
        active = None if row["active"] is None else space_of(row["active"])
        found[row["collection"]] = Collection(
            row["collection"], row["created_at"], row["all_videos"], contents, active
        )
    return list(found.values())


async def delete(connection: Any, name: str) -> bool:
    """Remove a collection with all its videos; tell whether it was there."""
    async with connection.transaction():
        number = await connection.fetchval(
            "SELECT id FROM collections WHERE name = $1 FOR UPDATE", name
        )
        if number is None:
            return False
        # By table, not by cascade, which would look each video's segments up by themselves.
        for table in ("segments", "videos"):
            await connection.execute(
                f"DELETE FROM {table} WHERE collection_id = $1",  # noqa: S608 - one of the two
                number,
                timeout=_DELETE_SECONDS,
            )
        await connection.execute("DELETE FROM collections WHERE id = $1", number)
    return True


async def hold(connection: Any, name: str) -> int:
    """Return the number of a collection that stays there until the end of the transaction.

    Raises:
        CollectionMissingError: there is none of this name.
    """
    number = await connection.fetchval(
        "SELECT id FROM collections WHERE name = $1 FOR KEY SHARE", name
    )
    if number is None:
        raise CollectionMissingError(name)
    return int(number)


async def place(connection: Any, collection: str, space: Space) -> Place | None:
    """Return where the vectors of a collection in a space are; None: there are none."""
    row = await connection.fetchrow(
        "SELECT t.collection_id, t.space_id, p.dimensions, t.videos, t.segments,"
        " coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass("
        "format('segments_graph_%s_%s', t.collection_id, t.space_id))), false) AS has_graph"
        " FROM contents t JOIN spaces p ON p.id = t.space_id"
        " JOIN collections c ON c.id = t.collection_id"
        " WHERE (p.name, p.revision, p.clip_weight) = ($1::text, $2::text, $3) AND c.name = $4",
        *space_key(space),
        collection,
    )
    return None if row is None else Place(*row)


async def number(connection: Any, name: str) -> int:
    """Return the number of a collection.

    Raises:
        CollectionMissingError: there is none of this name.
    """
    found = await connection.fetchval("SELECT id FROM collections WHERE name = $1", name)
    if found is None:
        raise CollectionMissingError(name)
    return int(found)


async def contents(connection: Any, *, collection: str | None) -> Sequence[SpaceContent]:
    """Return the spaces that hold vectors of a collection, or of all together."""
    rows = await connection.fetch(
        "SELECT p.*, sum(t.videos)::bigint AS videos, sum(t.segments)::bigint AS segments,"
        " coalesce(bool_or(c.active_space_id = p.id), false) AS active"
        " FROM contents t JOIN spaces p ON p.id = t.space_id"
        " JOIN collections c ON c.id = t.collection_id WHERE $1::text IS NULL OR c.name = $1"
        " GROUP BY p.id HAVING sum(t.segments) > 0 ORDER BY p.id",
        collection,
    )
    # Of all collections together none is: each has its own.
    return [
        SpaceContent(
            space_of(row),
            row["videos"],
            row["segments"],
            active=collection is not None and row["active"],
        )
        for row in rows
    ]


async def count_in(
    connection: Any,
    *,
    place: tuple[int, int],
    videos: int,
    segments: int,
    quiet_seconds: float | None = None,
) -> int:
    """Add what was written to the figures of a place; return how many segments it has by now.

    Args:
        connection: in the transaction that wrote.
        place: (collection, space).
        videos: that were written.
        segments: that were written.
        quiet_seconds: how long more may be on its way, so that no graph is built yet.
    """
    found = await connection.fetchval(
        "INSERT INTO contents AS t (collection_id, space_id, videos, segments, loads_until)"
        " VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))"
        " ON CONFLICT (collection_id, space_id) DO UPDATE SET videos = t.videos + $3,"
        " segments = t.segments + $4, loads_until = greatest(t.loads_until, excluded.loads_until)"
        " RETURNING segments",
        *place,
        videos,
        segments,
        quiet_seconds,
    )
    return int(found)


async def remove_segments(connection: Any, video_id: str, *, collection_id: int) -> None:
    """Remove all segments of a video, and take them off the figures."""
    await connection.execute(
        "SELECT 1 FROM contents WHERE collection_id = $1 ORDER BY space_id FOR UPDATE",
        collection_id,
    )
    await connection.execute(
        "WITH gone AS (DELETE FROM segments WHERE video_id = $1 RETURNING space_id),"
        " counted AS (SELECT space_id, count(*) AS number FROM gone GROUP BY space_id)"
        " UPDATE contents t SET videos = videos - 1, segments = segments - number"
        " FROM counted c WHERE t.collection_id = $2 AND t.space_id = c.space_id",
        video_id,
        collection_id,
    )


async def space_id(connection: Any, space: Space) -> int:
    """Return the number of a space; a new one gets its row."""
    key = space_key(space)
    found = await connection.fetchval(_SPACE, *key)
    if found is not None:
        return int(found)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        found = await connection.fetchval(_SPACE, *key)
        if found is None:
            found = await connection.fetchval(
                "INSERT INTO spaces (name, revision, clip_weight, dimensions)"
                " VALUES ($1, $2, $3, $4) RETURNING id",
                *key,
                space.dimensions,
            )
        return int(found)


async def keep_vectors(connection: Any, kind: str) -> str:
    """Settle where the vectors of this database are; return the name that it has there.

    Raises:
        IndexSetupError: it has vectors elsewhere.
    """
    async with connection.transaction():
        row = await connection.fetchrow("SELECT kind, name FROM vector_store FOR UPDATE")
        name: str = row["name"]
        if row["kind"] != kind:
            held = await connection.fetchval("SELECT coalesce(sum(segments), 0) FROM contents")
            if held:
                raise IndexSetupError(_ELSEWHERE[kind].format(segments=held))
            await connection.execute("UPDATE vector_store SET kind = $1", kind)
    return name


def space_key(space: Space) -> tuple[str, str, Decimal]:
    """What tells a space from others."""
    return space.name, space.revision, Decimal(f"{space.clip_weight:.4f}")


def space_of(row: Any) -> Space:
    """The space that a row of ``spaces`` describes."""
    return Space(row["name"], row["revision"], float(row["clip_weight"]), row["dimensions"])
