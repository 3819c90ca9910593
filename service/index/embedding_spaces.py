"""The SQL of spaces inside a collection: which is active, which is complete, what one lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.index import catalogue
from service.index.collection import CollectionMissingError, SpaceIncompleteError, SpaceInUseError
from service.index.segment import Cut
from service.index.space import Space

_DELETE_SECONDS: Final = 3600.0
_COUNT_SECONDS: Final = 600.0  # all videos of a collection are looked at, and nobody waits
_COUNTED: Final = "SELECT max(s.ordinal) + 1 FROM segments s WHERE s.video_id = v.id"
_LACKING: Final = """
    FROM videos v WHERE v.collection_id = $1
    AND EXISTS (SELECT FROM segments s WHERE s.video_id = v.id)
    AND NOT EXISTS (SELECT FROM segments s WHERE s.video_id = v.id AND s.space_id = $2)
"""


async def lacking(
    connection: Any, collection: str, space: Space, *, limit: int, after: str
) -> Sequence[str]:
    """Return ids of videos that have vectors, but none in this space, in order.

    Raises:
        CollectionMissingError: there is no such collection.
    """
    number = await catalogue.number(connection, collection)
    space_id = await catalogue.space_id(connection, space)
    rows = await connection.fetch(
        f"SELECT v.id {_LACKING} AND v.id > $3 ORDER BY v.id LIMIT $4",
        number,
        space_id,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def remaining(connection: Any, collection: str, space: Space) -> tuple[int, int]:
    """Return how many videos lack a space, and how many segments these have.

    Raises:
        CollectionMissingError: there is no such collection.
    """
    number = await catalogue.number(connection, collection)
    space_id = await catalogue.space_id(connection, space)
    row = await connection.fetchrow(
        f"SELECT count(*) AS videos, coalesce(sum(({_COUNTED})), 0)::bigint AS segments {_LACKING}",
        number,
        space_id,
        timeout=_COUNT_SECONDS,
    )
    return int(row["videos"]), int(row["segments"])


async def active(connection: Any, collection: str) -> Space | None:
    """Return the space that is searched; None: that of the service.

    Raises:
        CollectionMissingError: there is no such collection.
    """
    row = await connection.fetchrow(
        "SELECT to_jsonb(p) AS active FROM collections c"
        " LEFT JOIN spaces p ON p.id = c.active_space_id WHERE c.name = $1",
        collection,
    )
    if row is None:
        raise CollectionMissingError(collection)
    return None if row["active"] is None else catalogue.space_of(row["active"])


async def pin(connection: Any, space: Space, *, names: Sequence[str] | None) -> Sequence[str]:
    """Make collections that follow the service stay where they are; return their names."""
    space_id = await catalogue.space_id(connection, space)
    rows = await connection.fetch(
        "UPDATE collections c SET active_space_id = (SELECT t.space_id FROM contents t"
        " WHERE t.collection_id = c.id AND t.segments > 0"
        " ORDER BY t.space_id = $1 DESC, t.videos DESC, t.space_id DESC LIMIT 1)"
        " WHERE c.active_space_id IS NULL AND ($2::text[] IS NULL OR c.name = ANY($2))"
        " AND EXISTS (SELECT FROM contents t WHERE t.collection_id = c.id AND t.segments > 0)"
        " RETURNING c.name",
        space_id,
        None if names is None else list(names),
    )
    return [row["name"] for row in rows]


async def unpin(connection: Any, names: Sequence[str]) -> None:
    """Make collections follow the service."""
    await connection.execute(
        "UPDATE collections SET active_space_id = NULL WHERE name = ANY($1::text[])", list(names)
    )


async def cut(connection: Any, video_id: str) -> Cut | None:
    """Return how a video is cut in the active space, else in its newest; None: it is gone."""
    rows = await connection.fetch(
        "SELECT v.sha256, s.start_seconds, s.end_seconds"
        " FROM videos v JOIN collections c ON c.id = v.collection_id"
        " JOIN segments s ON s.video_id = v.id AND s.space_id = ("
        "  SELECT o.space_id FROM segments o WHERE o.video_id = v.id AND o.ordinal = 0"
        "  ORDER BY (o.space_id = c.active_space_id) IS TRUE DESC, o.space_id DESC LIMIT 1)"
        " WHERE v.id = $1 ORDER BY s.ordinal",
        video_id,
    )
    if not rows:
        return None
    spans = tuple((row["start_seconds"], row["end_seconds"]) for row in rows)
    return Cut(rows[0]["sha256"], spans)


async def activate(
    connection: Any, collection: str, space: Space | None, *, without: Sequence[str] = ()
) -> None:
    """Make a space the one that is searched, or none. To be called in a transaction.

    Videos of the ids ``without`` may lack it.

    Raises:
        CollectionMissingError: there is no such collection.
        SpaceIncompleteError: a video has vectors, but none in this space.
    """
    # Writers of videos hold the collection, too: nothing is added between the look and the switch.
    number = await connection.fetchval(
        "SELECT id FROM collections WHERE name = $1 FOR UPDATE", collection
    )
    if number is None:
        raise CollectionMissingError(collection)
    space_id = None
    if space is not None:
        space_id = await catalogue.space_id(connection, space)
        is_lacking = await connection.fetchval(
            f"SELECT EXISTS (SELECT {_LACKING} AND v.id <> ALL($3::text[]))",
            number,
            space_id,
            list(without),
        )
        if is_lacking:
            raise SpaceIncompleteError(space.id)
    await connection.execute(
        "UPDATE collections SET active_space_id = $2 WHERE id = $1", number, space_id
    )


async def remove(connection: Any, collection: str, space: Space) -> None:
    """Remove all vectors of a collection in one space. To be called in a transaction.

    Raises:
        CollectionMissingError: there is no such collection.
        SpaceInUseError: it is active.
    """
    number = await catalogue.number(connection, collection)
    space_id = await catalogue.space_id(connection, space)
    place = (number, space_id)
    active = await connection.fetchval(
        "SELECT active_space_id FROM collections WHERE id = $1 FOR KEY SHARE", number
    )
    if active == space_id:
        raise SpaceInUseError(space.id)
    # Figures first: writers of this place wait here, and none of theirs is missed or taken twice.
    await connection.execute(
        "SELECT FROM contents WHERE collection_id = $1 AND space_id = $2 FOR UPDATE", *place
    )
    await connection.execute(
        "DELETE FROM segments WHERE collection_id = $1 AND space_id = $2",
        *place,
        timeout=_DELETE_SECONDS,
    )
    await connection.execute(
        "DELETE FROM contents WHERE collection_id = $1 AND space_id = $2", *place
    )
