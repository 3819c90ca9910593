"""Several spaces in one collection: what one lacks, and the switch from one to another."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from service.index import catalogue, video_records
from service.index.collection import (
    CollectionMissingError,
    SpaceIncompleteError,
    SpaceInUseError,
)
from service.index.postgres import PostgresIndex
from service.index.postgres_vectors import RowWriter
from service.index.space import Space
from service.index.video_index import NewSegment, NewVideo

pytestmark = pytest.mark.anyio

OLD = Space("demo", "0123456789ab", 0.4, 8)
NEW = Space("demo", "ba9876543210", 0.6, 4)


def _video(number: int) -> NewVideo:
    return NewVideo(f"{number:03d}", 10, None, None, 8.0, 25.0, 320, 240, "h264")


async def _add(index: PostgresIndex, number: int, space: Space) -> str:
    vector = np.zeros(space.dimensions, np.float32)
    vector[0] = 1.0
    segments = [NewSegment(0.0, 1.0, vector)]
    stored, _ = await index.add(_video(number), space=space, segments=segments)
    return stored.id


async def _active(index: PostgresIndex) -> Space | None:
    collection = await index.collection("default")
    assert collection is not None
    marked = [each.space for each in await index.spaces(collection="default") if each.active]
    assert marked == ([] if collection.active is None else [collection.active])
    return collection.active


async def test_a_space_becomes_active_once_it_lacks_nothing(index: PostgresIndex) -> None:
    """What is missing is named page by page; until nothing is, there is no switch."""
    ids = sorted([await _add(index, number, OLD) for number in range(5)])
    await _add(index, 2, NEW)
    await index.activate(OLD, collection="default")
    missing = await index.lacking(NEW, collection="default", limit=3)
    missing = [
        *missing,
        *await index.lacking(NEW, collection="default", limit=3, after=missing[-1]),
    ]
    assert len(missing) == 4
    assert missing == sorted(missing)
    assert set(missing) < set(ids)
    with pytest.raises(SpaceIncompleteError):
        await index.activate(NEW, collection="default")
    assert await _active(index) == OLD
    for number in range(5):
        await _add(index, number, NEW)
    assert await index.complete(NEW, collection="default")
    await index.activate(NEW, collection="default")
    assert await _active(index) == NEW
    await index.activate(None, collection="default")
    assert await _active(index) is None


async def test_old_vectors_go_when_nothing_needs_them(index: PostgresIndex) -> None:
    """The active space stays; another goes whole, videos and the other vectors stay."""
    await index.create_collection("empty")
    await index.activate(NEW, collection="empty")  # nothing lacks anything there
    video_id = await _add(index, 0, OLD)
    await _add(index, 0, NEW)
    await index.activate(NEW, collection="default")
    with pytest.raises(SpaceInUseError):
        await index.remove_space(NEW, collection="default")
    await index.remove_space(OLD, collection="default")
    assert [each.space for each in await index.spaces()] == [NEW]
    stored = await index.get(video_id)
    assert stored is not None
    assert (stored.spaces, stored.segments) == ((NEW.id,), 1)
    for refused in (
        index.activate(NEW, collection="none"),
        index.complete(NEW, collection="none"),
        index.remove_space(NEW, collection="none"),
    ):
        with pytest.raises(CollectionMissingError):
            await refused


async def test_no_video_slips_in_between_the_look_and_the_switch(index: PostgresIndex) -> None:
    """A switch waits for a video that is being added, and is refused if it lacks the space."""
    await _add(index, 0, OLD)
    await _add(index, 0, NEW)
    connection = await index.database.connect()
    try:
        adding = connection.transaction()
        await adding.start()
        number = await catalogue.space_id(connection, OLD)
        segments = [NewSegment(0.0, 1.0, np.eye(8, dtype=np.float32)[0])]
        await video_records.write(
            connection,
            _video(1),
            space_id=number,
            segments=segments,
            vectors=RowWriter(connection),
        )
        switch = asyncio.create_task(index.activate(NEW, collection="default"))
        await asyncio.wait([switch], timeout=0.3)
        assert not switch.done()
        await adding.commit()
        with pytest.raises(SpaceIncompleteError):
            await switch
    finally:
        await connection.close()
    assert await _active(index) is None


async def test_a_load_tells_what_is_new_and_brings_known_videos_their_space(
    index: PostgresIndex,
) -> None:
    """Twice in one batch or in two is once in the index; a known video gets another space."""
    vector = np.eye(8, dtype=np.float32)[0]
    segments = [NewSegment(0.0, 1.0, vector), NewSegment(1.0, 2.0, vector)]
    first = [(_video(n), segments) for n in (3, 1, 2, 1)]
    assert sorted(await index.add_many(first, space=OLD)) == [False, True, True, True]
    assert await index.add_many([(_video(n), segments) for n in (2, 4)], space=OLD) == [False, True]
    other = replace(OLD, clip_weight=0.5)
    assert await index.add_many([(_video(4), segments)], space=other) == [False]
    assert await index.add_many([], space=OLD) == []
    found = [(each.videos, each.segments) for each in await index.spaces()]
    assert found == [(4, 8), (1, 2)]
    rows = await index.database.run(
        lambda c: c.fetch("SELECT count(*) FROM segments GROUP BY space_id ORDER BY space_id")
    )
    assert [row[0] for row in rows] == [8, 2]
    missing = replace(_video(9), collection="none")
    with pytest.raises(CollectionMissingError):
        await index.add_many([(_video(8), segments), (missing, segments)], space=OLD)
    assert await index.find("008") is None


async def test_loads_of_the_same_videos_at_once_do_not_block_each_other(
    index: PostgresIndex,
) -> None:
    """Four loaders with the same videos in different orders: each video is there once, whole."""
    vector = np.eye(8, dtype=np.float32)[0]
    batch = [(_video(n), [NewSegment(0.0, 1.0, vector)]) for n in range(60)]
    draw = np.random.default_rng(3)
    orders = [[batch[n] for n in draw.permutation(60)] for _ in range(4)]
    created = await asyncio.gather(*(index.add_many(order, space=OLD) for order in orders))
    assert sum(map(sum, created)) == 60
    assert [(each.videos, each.segments) for each in await index.spaces()] == [(60, 60)]
