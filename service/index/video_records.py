"""The SQL of videos: written, read, changed and removed with all that hangs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.ids import new_id
from service.index import catalogue
from service.index.change import Scalar, VideoChange
from service.index.vectors import VectorWriter, segment_rows
from service.index.video_index import NewSegment, NewVideo, StoredVideo, VersionMismatchError

VIDEO: Final = """
    SELECT v.*, c.name AS collection,
        (SELECT count(*) FROM segments s WHERE s.video_id = v.id) AS segments,
        ARRAY(SELECT p.name || '@' || p.revision || '/' || trim_scale(p.clip_weight)
              FROM spaces p
              WHERE EXISTS (SELECT FROM segments s WHERE s.video_id = v.id AND s.space_id = p.id)
              ORDER BY p.id) AS spaces
    FROM videos v JOIN collections c ON c.id = v.collection_id
"""
QUIET_SECONDS: Final = 30.0
"""How long after many videos more are waited for, before a graph is built over what there is."""


@dataclass(frozen=True)
class Written:
    """What became of a video.

    Attributes:
        created: it is new in its collection.
        place: (collection, space).
        segments: that the place has by now; 0 if nothing was added.
    """

    created: bool
    place: tuple[int, int]
    segments: int


def stored(row: Any) -> StoredVideo:
    """The video that a row of `VIDEO` describes."""
    values = {**row, "spaces": tuple(row["spaces"])}
    del values["collection_id"]
    return StoredVideo(**values)


async def write(
    connection: Any,
    video: NewVideo,
    *,
    space_id: int,
    segments: Sequence[NewSegment],
    vectors: VectorWriter,
) -> Written:
    """Write a video and its segments in one space.

    To be called in the transaction of ``vectors``. A video that has segments in this space keeps
    them.

    Raises:
        CollectionMissingError: the collection is not there.
    """
    collection_id = await catalogue.hold(connection, video.collection)
    video_id = await connection.fetchval(
        "INSERT INTO videos (collection_id, id, sha256, size_bytes, external_id, metadata,"
        " duration_seconds, fps, width, height, codec)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " ON CONFLICT (collection_id, sha256) DO NOTHING RETURNING id",
        collection_id, new_id("vid"), video.sha256, video.size_bytes, video.external_id,
        dict(video.metadata or {}), video.duration_seconds, video.fps, video.width, video.height,
        video.codec,
    )  # fmt: skip
    created = video_id is not None
    place = (collection_id, space_id)
    if not created:
        video_id = await meet(connection, video, place=place)
        if video_id is None:
            return Written(False, place, 0)
    rows = segment_rows(video_id, segments, place=place)
    size = 0
    if rows:
        await vectors.write(rows)
        size = await catalogue.count_in(connection, place=place, videos=1, segments=len(rows))
    return Written(created, place, size)


async def embed(
    connection: Any,
    video_id: str,
    *,
    space_id: int,
    segments: Sequence[NewSegment],
    vectors: VectorWriter,
) -> Written | None:
    """Give a video its segments in one more space. To be called in the transaction of ``vectors``.

    None: it is gone, or has segments there.
    """
    # The collection before the video, as whoever adds does.
    collection_id = await connection.fetchval(
        "SELECT c.id FROM collections c WHERE c.id ="
        " (SELECT v.collection_id FROM videos v WHERE v.id = $1) FOR KEY SHARE",
        video_id,
    )
    is_there = await connection.fetchval(
        "SELECT true FROM videos WHERE id = $1 FOR UPDATE", video_id
    )
    taken = await connection.fetchval(
        "SELECT 1 FROM segments WHERE video_id = $1 AND space_id = $2 LIMIT 1", video_id, space_id
    )
    if not is_there or taken is not None or not segments:
        return None
    await connection.execute("UPDATE videos SET version = version + 1 WHERE id = $1", video_id)
    place = (collection_id, space_id)
    rows = segment_rows(video_id, segments, place=place)
    await vectors.write(rows)
    size = await catalogue.count_in(
        connection, place=place, videos=1, segments=len(rows), quiet_seconds=QUIET_SECONDS
    )
    return Written(False, place, size)


async def meet(connection: Any, video: NewVideo, *, place: tuple[int, int]) -> str | None:
    """Bring a known video its new facts; None if it has segments in this space already.

    Returns:
        Its id: it is to get segments, and is locked until then.
    """
    collection_id, space_id = place
    # Lock the row: two uploads of the same film must not both add the segments of a space.
    video_id: str | None = await connection.fetchval(
        "SELECT id FROM videos WHERE collection_id = $1 AND sha256 = $2 FOR UPDATE",
        collection_id,
        video.sha256,
    )
    taken = await connection.fetchval(
        "SELECT 1 FROM segments WHERE video_id = $1 AND space_id = $2 LIMIT 1",
        video_id,
        space_id,
    )
    if video_id is None or taken is not None:
        return None
    await connection.execute(
        "UPDATE videos SET version = version + 1, external_id = coalesce($2, external_id),"
        " metadata = coalesce($3, metadata) WHERE id = $1",
        video_id,
        video.external_id,
        None if video.metadata is None else dict(video.metadata),
    )
    return video_id


async def replace(
    connection: Any, video_id: str, *, external_id: str | None, metadata: object | None
) -> None:
    """Set what is not None and differs."""
    await connection.execute(
        "UPDATE videos SET version = version + 1, external_id = coalesce($2, external_id),"
        " metadata = coalesce($3, metadata) WHERE id = $1"
        " AND (external_id IS DISTINCT FROM coalesce($2, external_id)"
        "      OR metadata IS DISTINCT FROM coalesce($3, metadata))",
        video_id,
        external_id,
        metadata,
    )


async def change(
    connection: Any, video_id: str, *, version: int | None, wanted: VideoChange
) -> bool:
    """Merge a change into a video; tell whether it is there. To be called in a transaction.

    Raises:
        VersionMismatchError: it is there, but not in this version.
        MetadataLimitError: it would have too many keys.
    """
    row = await connection.fetchrow(
        "SELECT version, external_id, metadata FROM videos WHERE id = $1 FOR UPDATE", video_id
    )
    if row is None:
        return False
    if version is not None and row["version"] != version:
        raise VersionMismatchError
    external_id: str | None = row["external_id"]
    if wanted.sets_external_id:
        external_id = wanted.external_id
    metadata = wanted.merged(row["metadata"])
    # As JSON: in Python 1 equals True and 1.0.
    if external_id != row["external_id"] or _json(metadata) != _json(row["metadata"]):
        await connection.execute(
            "UPDATE videos SET version = version + 1, external_id = $2, metadata = $3"
            " WHERE id = $1",
            video_id,
            external_id,
            metadata,
        )
    return True


def _json(metadata: Mapping[str, Scalar]) -> bytes:
    return orjson.dumps(dict(metadata), option=orjson.OPT_SORT_KEYS)


async def remove(connection: Any, video_id: str, *, version: int | None) -> bool:
    """Remove a video with everything it has; tell whether it was there. In a transaction.

    Raises:
        VersionMismatchError: it is there, but not in this version.
    """
    row = await connection.fetchrow(
        "SELECT version, collection_id FROM videos WHERE id = $1 FOR UPDATE", video_id
    )
    if row is None:
        return False
    if version is not None and row["version"] != version:
        raise VersionMismatchError
    await catalogue.remove_segments(connection, video_id, collection_id=row["collection_id"])
    await connection.execute("DELETE FROM videos WHERE id = $1", video_id)
    return True
