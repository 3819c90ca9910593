"""Many videos in one transaction, by COPY: how large collections are loaded."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from service.ids import new_id
from service.index import catalogue, video_records
from service.index.vectors import SegmentRow, VectorWriter, segment_rows
from service.index.video_index import Batch, NewVideo

_INSERT: Final = """
    INSERT INTO videos (collection_id, id, sha256, size_bytes, external_id, metadata,
                        duration_seconds, fps, width, height, codec)
    SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::text[],
                         $6::jsonb[], $7::float8[], $8::float8[], $9::integer[], $10::integer[],
                         $11::text[])
    ON CONFLICT (collection_id, sha256) DO NOTHING RETURNING id
"""


async def write(
    connection: Any, batch: Batch, *, space_id: int, vectors: VectorWriter
) -> tuple[list[bool], dict[tuple[int, int], int]]:
    """Write videos and their segments in one space, all or nothing, in the transaction of vectors.

    Returns:
        Whether each video is new in its collection; and place -> segments it has by now.

    Raises:
        CollectionMissingError: a collection is not there.
    """
    names = sorted({video.collection for video, _ in batch})
    numbers = {name: await catalogue.hold(connection, name) for name in names}
    ids = [new_id("vid") for _ in batch]
    # In one order everywhere, so that two loads of the same videos do not wait for each other.
    order = sorted(range(len(batch)), key=lambda n: (batch[n][0].collection, batch[n][0].sha256))
    rows = [(numbers[batch[n][0].collection], ids[n], *_facts(batch[n][0])) for n in order]
    inserted = await connection.fetch(
        _INSERT, *(list(column) for column in zip(*rows, strict=True))
    )
    new = {row["id"] for row in inserted}
    segments: list[SegmentRow] = []
    seen: set[tuple[str, str]] = set()
    videos: Counter[tuple[int, int]] = Counter()
    counts: Counter[tuple[int, int]] = Counter()
    for n in order:
        video, parts = batch[n]
        place = (numbers[video.collection], space_id)
        video_id: str | None = ids[n]
        content = (video.collection, video.sha256)
        if content in seen and video_id not in new:
            continue  # twice in this batch: the other one has been taken
        seen.add(content)
        if video_id not in new:
            video_id = await video_records.meet(connection, video, place=place)
        if video_id is None or not parts:
            continue
        segments += segment_rows(video_id, parts, place=place)
        videos[place] += 1
        counts[place] += len(parts)
    if segments:
        await vectors.write(segments)
    sizes = {
        place: await catalogue.count_in(
            connection,
            place=place,
            videos=videos[place],
            segments=counts[place],
            quiet_seconds=video_records.QUIET_SECONDS,
        )
        for place in sorted(counts)
    }
    return [video_id in new for video_id in ids], sizes


def _facts(video: NewVideo) -> tuple[object, ...]:
    return (
        video.sha256,
        video.size_bytes,
        video.external_id,
        dict(video.metadata or {}),
        video.duration_seconds,
        video.fps,
        video.width,
        video.height,
        video.codec,
    )
