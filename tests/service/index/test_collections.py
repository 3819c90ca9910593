"""Collections over a real Postgres: apart from each other, counted right, removed whole."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.index.change import MetadataLimitError, VideoChange
from service.index.collection import CollectionExistsError, CollectionMissingError
from service.index.postgres import PostgresIndex
from service.index.video_index import (
    NewSegment,
    NewVideo,
    Space,
    Vector,
    VersionMismatchError,
)
from service.index.wish import Wish

pytestmark = pytest.mark.anyio

SPACE = Space("demo", "0123456789ab", 0.4, 8)
OTHER = replace(SPACE, clip_weight=0.5)
VIDEO = NewVideo("a", 10, None, {"n": 1, "s": "é"}, 8.0, 25.0, 320, 240, "h264")


@pytest.fixture
async def index(index: PostgresIndex) -> PostgresIndex:
    """An open index with an empty collection ``cats`` beside the default one."""
    await index.create_collection("cats")
    return index


def _segments(*axes: int) -> list[NewSegment]:
    return [NewSegment(float(n), n + 1.0, _axis(axis)) for n, axis in enumerate(axes)]


def _axis(number: int) -> Vector:
    return np.asarray(np.eye(8, dtype=np.float32)[number])


async def _found(index: PostgresIndex, collection: str) -> list[str]:
    hits = await index.search(_axis(0), space=SPACE, wish=Wish(10), collection=collection)
    return [hit.video_id for hit in hits]


async def test_the_same_content_is_one_video_in_each_collection(index: PostgresIndex) -> None:
    """Known bytes are known inside a collection only, and found inside it only."""
    in_cats = replace(VIDEO, collection="cats")
    first, created = await index.add(VIDEO, space=SPACE, segments=_segments(0))
    second, created_too = await index.add(in_cats, space=SPACE, segments=_segments(1, 2))
    _, created_again = await index.add(in_cats, space=SPACE, segments=_segments(3))
    assert (created, created_too, created_again) == (True, True, False)
    assert first.id != second.id
    assert (first.collection, second.collection) == ("default", "cats")
    assert await index.find("a", collection="cats") == second
    assert await _found(index, "default") == [first.id]
    assert await _found(index, "cats") == [second.id]
    listed = await index.list(limit=9, before=None, external_id=None, collection="cats")
    assert [video.id for video in listed] == [second.id]
    assert [c.segments for c in await index.spaces(collection="cats")] == [2]
    assert [(c.videos, c.segments) for c in await index.spaces()] == [(2, 3)]


async def test_a_removed_collection_takes_everything_of_it_along(index: PostgresIndex) -> None:
    """Its videos, vectors and figures go; the others stay; its name is free again."""
    stays, _ = await index.add(VIDEO, space=SPACE, segments=_segments(0))
    goes, _ = await index.add(
        replace(VIDEO, collection="cats"), space=OTHER, segments=_segments(0, 1)
    )
    with pytest.raises(CollectionExistsError):
        await index.create_collection("cats")
    assert await index.delete_collection("cats")
    assert not await index.delete_collection("cats")
    assert await index.get(goes.id) is None
    assert [collection.name for collection in await index.collections()] == ["default"]
    assert [content.space for content in await index.spaces()] == [SPACE]
    assert await index.get(stays.id) == stays
    assert (await index.create_collection("cats")).videos == 0


async def test_nothing_is_added_to_a_collection_that_is_not_there(index: PostgresIndex) -> None:
    """Whether it never was, or is removed while videos are being added."""
    nowhere = replace(VIDEO, collection="dogs")
    with pytest.raises(CollectionMissingError):
        await index.add(nowhere, space=SPACE, segments=_segments(0))
    videos = [replace(VIDEO, sha256=str(n), collection="cats") for n in range(20)]
    *added, was_there = await asyncio.gather(
        *(index.add(video, space=SPACE, segments=_segments(0)) for video in videos),
        index.delete_collection("cats"),
        return_exceptions=True,
    )
    assert was_there is True
    refused = [each for each in added if isinstance(each, BaseException)]
    assert all(isinstance(each, CollectionMissingError) for each in refused)
    rows = await index.database.run(lambda c: c.fetchval("SELECT count(*) FROM segments"))
    assert (rows, await index.spaces()) == (0, [])


async def test_figures_stay_right_while_many_write_at_once(index: PostgresIndex) -> None:
    """Two spaces, adding and removing together: what is counted is what is there."""
    videos = [replace(VIDEO, sha256=str(n)) for n in range(12)]

    async def live(video: NewVideo, *, stays: bool) -> None:
        stored, _ = await index.add(video, space=SPACE, segments=_segments(0, 1))
        await index.add(video, space=OTHER, segments=_segments(0, 1, 2))
        if not stays:
            await index.delete(stored.id, version=None)

    await asyncio.gather(*(live(v, stays=n % 3 == 0) for n, v in enumerate(videos)))
    assert [(c.videos, c.segments) for c in await index.spaces()] == [(4, 8), (4, 12)]
    counted = await index.database.run(
        lambda c: c.fetch("SELECT count(*) FROM segments GROUP BY space_id ORDER BY space_id")
    )
    assert [row[0] for row in counted] == [8, 12]


async def test_a_change_is_merged_into_what_is_there(index: PostgresIndex) -> None:
    """Keys that are named change or go, others stay; the version grows with each difference."""
    stored, _ = await index.add(VIDEO, space=SPACE, segments=_segments(0))

    async def change(**wanted: object) -> tuple[int, str | None, dict[str, object]]:
        video = await index.change(stored.id, VideoChange(**wanted), version=None)  # type: ignore[arg-type]
        assert video is not None
        return video.version, video.external_id, dict(video.metadata)

    assert await change(metadata={"n": 2, "s": None, "x": 0.5}) == (2, None, {"n": 2, "x": 0.5})
    assert await change(metadata={"n": 2, "gone": None}) == (2, None, {"n": 2, "x": 0.5})
    version, _, metadata = await change(metadata={"n": 2.0})
    assert (version, type(metadata["n"])) == (3, float)
    assert (await change(sets_external_id=True, external_id="e"))[:2] == (4, "e")
    assert (await change(sets_external_id=True))[:2] == (5, None)
    assert await change(clears_metadata=True) == (6, None, {})
    with pytest.raises(VersionMismatchError):
        await index.change(stored.id, VideoChange(clears_metadata=True), version=5)
    with pytest.raises(MetadataLimitError):
        await index.change(stored.id, VideoChange(metadata={"a": 1}, max_keys=0), version=6)
    assert await index.change("vid_none", VideoChange(), version=None) is None


_VALUES = st.one_of(st.booleans(), st.integers(-9, 9), st.text("aé", max_size=3))
_METADATA = st.dictionaries(st.sampled_from("abcd"), _VALUES)


@pytest.mark.timeout(600)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(present=_METADATA, patch=st.dictionaries(st.sampled_from("abcdef"), _VALUES | st.none()))
def test_merging_follows_the_standard(
    present: dict[str, bool | int | str], patch: dict[str, bool | int | str | None]
) -> None:
    """RFC 7396, section 2, for an object of scalars: null removes, everything else replaces."""
    merged = VideoChange(metadata=patch).merged(present)
    for key in {*present, *patch}:
        expected = patch[key] if key in patch else present[key]
        assert merged.get(key) == expected
        assert (key in merged) == (expected is not None)
