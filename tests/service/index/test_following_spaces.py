"""Collections that follow the service, or stay; videos that get one more space."""

import numpy as np
import pytest

from service.index.collection import CollectionMissingError, SpaceIncompleteError
from service.index.postgres import PostgresIndex
from service.index.segment import Cut, NewSegment
from service.index.space import Space
from service.index.video_index import NewVideo

pytestmark = pytest.mark.anyio

OLD = Space("demo", "0123456789ab", 0.4, 8)
NEW = Space("demo", "0123456789ab", 0.6, 8)
SPANS = ((0.0, 1.5), (1.5, 3.25))


def _segments(spans: tuple[tuple[float, float], ...] = SPANS, size: int = 8) -> list[NewSegment]:
    return [NewSegment(*span, np.eye(size, dtype=np.float32)[0]) for span in spans]


async def _add(
    index: PostgresIndex, number: int, space: Space, *, collection: str = "default"
) -> str:
    video = NewVideo(
        f"{number:03d}", 10, None, None, 8.0, 25.0, 320, 240, "h264", collection=collection
    )
    stored, _ = await index.add(video, space=space, segments=_segments())
    return stored.id


async def test_collections_with_vectors_are_held_where_they_are(index: PostgresIndex) -> None:
    """In the served space, else where they hold most; empty and held ones are left alone."""
    for name in ("empty", "elsewhere", "held"):
        await index.create_collection(name)
    await _add(index, 0, OLD)
    await _add(index, 0, NEW)
    await _add(index, 0, NEW, collection="elsewhere")
    await _add(index, 0, NEW, collection="held")
    await index.activate(NEW, collection="held")
    assert sorted(await index.pin(OLD, collections=["default"])) == ["default"]
    assert sorted(await index.pin(OLD)) == ["elsewhere"]
    found = {each.name: each.active for each in await index.collections()}
    assert found == {"default": OLD, "elsewhere": NEW, "held": NEW, "empty": None}
    assert await index.active_space("default") == OLD
    await index.unpin(["default", "elsewhere"])
    assert await index.active_space("default") is None
    with pytest.raises(CollectionMissingError):
        await index.active_space("none")


async def test_a_video_gets_one_more_space_in_the_same_windows(index: PostgresIndex) -> None:
    """Once, with another version; what is counted follows; a deleted one stays deleted."""
    video_id = await _add(index, 0, OLD)
    before = await index.get(video_id)
    assert before is not None
    assert await index.cut(video_id) == Cut("000", SPANS)
    assert await index.remaining(NEW, collection="default") == (1, 2)
    assert await index.embed(video_id, space=NEW, segments=_segments())
    assert not await index.embed(video_id, space=NEW, segments=_segments())
    assert await index.remaining(NEW, collection="default") == (0, 0)
    after = await index.get(video_id)
    assert after is not None
    assert (after.version, after.spaces) == (before.version + 1, (OLD.id, NEW.id))
    assert [(each.videos, each.segments) for each in await index.spaces()] == [(1, 2), (1, 2)]
    with pytest.raises(ValueError, match="shape"):
        await index.embed(video_id, space=NEW, segments=_segments(size=4))
    await index.delete(video_id, version=None)
    assert await index.cut(video_id) is None
    assert not await index.embed(video_id, space=NEW, segments=_segments())
    assert await index.get(video_id) is None


async def test_the_windows_are_those_that_are_searched(index: PostgresIndex) -> None:
    """Where a video is cut in two ways: those of the active space, else those of the newest."""
    video_id = await _add(index, 0, OLD)
    whole = ((0.0, 3.25),)
    await index.embed(video_id, space=NEW, segments=_segments(whole))
    assert await index.cut(video_id) == Cut("000", whole)
    await index.activate(OLD, collection="default")
    assert await index.cut(video_id) == Cut("000", SPANS)


async def test_a_switch_may_leave_named_videos_behind(index: PostgresIndex) -> None:
    """Those that are named, and no other."""
    left = [await _add(index, number, OLD) for number in range(2)]
    with pytest.raises(SpaceIncompleteError):
        await index.activate(NEW, collection="default", without=left[:1])
    await index.activate(NEW, collection="default", without=left)
    assert await index.active_space("default") == NEW
