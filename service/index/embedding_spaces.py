"""The SQL of spaces inside a collection: which is active, which is complete, what one lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.index import catalogue
from service.index.collection import CollectionMissingError, SpaceIncompleteError, SpaceInUseError
from service.index.space import Space

_DELETE_SECONDS: Final = 3600.0
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


async def activate(connection: Any, collection: str, space: Space | None) -> None:
    """Make a space the one that is searched, or none. To be called in a transaction.

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
            f"SELECT EXISTS (SELECT {_LACKING})", number, space_id
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
