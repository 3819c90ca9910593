"""The index over a real Postgres: all or nothing, exact search, spaces kept apart."""

import asyncpg
import numpy as np
import pytest

from service.index.postgres import PostgresIndex
from service.index.video_index import (
    IndexSetupError,
    NewSegment,
    NewVideo,
    Space,
    Vector,
    VersionMismatchError,
)
from service.index.wish import Wish
from tests.service.index.conftest import OpenIndex

pytestmark = pytest.mark.anyio

SPACE = Space("demo", "0123456789ab", 0.4, 8)
OTHER = Space("demo", "0123456789ab", 0.5, 8)


def _unit(*values: float) -> Vector:
    vector = np.zeros(8, np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _video(
    sha: str, *, external_id: str | None = None, metadata: dict[str, object] | None = None
) -> NewVideo:
    return NewVideo(sha, 10, external_id, metadata, 8.0, 25.0, 320, 240, "h264")  # type: ignore[arg-type]


def _segments(*vectors: Vector) -> list[NewSegment]:
    return [NewSegment(4.0 * i, 4.0 * (i + 1), vector) for i, vector in enumerate(vectors)]


async def test_a_video_comes_back_as_it_was_added(index: PostgresIndex) -> None:
    """Facts, typed metadata and the number of segments survive; the same content is one video."""
    facts = _video(
        "a", external_id="cam-1", metadata={"n": 3, "x": 0.5, "ok": True, "s": "é", "z": None}
    )
    stored, created = await index.add(facts, space=SPACE, segments=_segments(_unit(1), _unit(0, 1)))
    again, created_again = await index.add(facts, space=SPACE, segments=_segments(_unit(1)))
    assert (created, created_again) == (True, False)
    assert again == stored == await index.get(stored.id) == await index.find("a")
    assert stored.metadata == facts.metadata
    assert (stored.segments, stored.spaces, stored.version) == (2, (SPACE.id,), 1)


async def test_another_space_of_a_known_video_brings_its_new_facts(index: PostgresIndex) -> None:
    """What is sent with the second indexing is kept; what is not sent stays as it was."""
    first = _video("a", external_id="cam-1", metadata={"n": 1})
    await index.add(first, space=SPACE, segments=_segments(_unit(1)))
    second = _video("a", metadata={"n": 2})
    stored, created = await index.add(second, space=OTHER, segments=_segments(_unit(1)))
    assert (created, stored.external_id, stored.metadata) == (False, "cam-1", {"n": 2})
    assert (stored.spaces, stored.version) == ((SPACE.id, OTHER.id), 2)


async def test_a_query_meets_vectors_of_its_own_space_only(index: PostgresIndex) -> None:
    """The same film indexed in two spaces is found in each by the vectors of that space."""
    await index.add(_video("a"), space=SPACE, segments=_segments(_unit(1)))
    stored, created = await index.add(_video("a"), space=OTHER, segments=_segments(_unit(0, 1)))
    assert not created
    assert stored.spaces == (SPACE.id, OTHER.id)
    for space, expected in ((SPACE, 1.0), (OTHER, 0.0)):
        [hit] = await _search(index, _unit(1), space=space)
        assert hit.segments[0].cosine == pytest.approx(expected, abs=1e-6)
    assert await _search(index, _unit(1), space=Space("demo", "0123456789ab", 0.6, 8)) == []
    assert [content.space for content in await index.spaces()] == [SPACE, OTHER]


async def _search(index: PostgresIndex, query: Vector, *, space: Space = SPACE, **options: object):  # type: ignore[no-untyped-def]
    wish: dict[str, object] = {
        "top_k": 10, "group_by": "video", "per_video": 3, "min_cosine": -1.0, **options
    }  # fmt: skip
    return await index.search(query, space=space, wish=Wish(**wish))  # type: ignore[arg-type]


@pytest.mark.parametrize("exact_segments", [10_000, 0])
async def test_search_equals_brute_force(
    postgres: str, make_index: OpenIndex, exact_segments: int
) -> None:
    """Grouping by video and by segment returns what numpy finds, exact and through the graph."""
    index = make_index(postgres, exact_segments=exact_segments)
    await index.start()
    try:
        draw = np.random.default_rng(1)
        vectors = draw.normal(size=(30, 5, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        ids = []
        for number, rows in enumerate(vectors):
            stored, _ = await index.add(_video(str(number)), space=SPACE, segments=_segments(*rows))
            ids.append(stored.id)
        query = vectors[3, 2]
        cosines = vectors @ query
        by_video = await _search(index, query, top_k=7, per_video=2)
        best = np.argsort(-cosines.max(axis=1))[:7]
        assert [hit.video_id for hit in by_video] == [ids[i] for i in best]
        for hit, row in zip(by_video, best, strict=True):
            found = [segment.cosine for segment in hit.segments]
            assert found == pytest.approx(sorted(cosines[row], reverse=True)[:2], abs=1e-5)
        by_segment = await _search(index, query, top_k=7, per_video=1, group_by="segment")
        assert [hit.video_id for hit in by_segment] == [ids[i] for i in best]
        above = await _search(
            index, query, top_k=100, per_video=5, group_by="segment", min_cosine=0.3
        )
        assert len(above) == int((cosines >= 0.3).sum())
        assert all(len(hit.segments) == 1 for hit in above)
    finally:
        await index.close()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (np.ones(5, np.float32), ValueError),
        (np.full(8, np.nan, np.float32), (asyncpg.PostgresError, ValueError)),  # none takes it
    ],
    ids=["length", "value"],
)
async def test_nothing_of_a_video_is_written_when_one_segment_fails(
    index: PostgresIndex, wrong: Vector, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    """A vector that cannot be one undoes the video and its good segments."""
    with pytest.raises(error):
        await index.add(_video("a"), space=SPACE, segments=_segments(_unit(1), wrong))
    assert await index.find("a") is None
    assert await index.spaces() == []


async def test_delete_removes_everything_and_honours_the_version(index: PostgresIndex) -> None:
    """A stale version is refused; afterwards neither the video nor its segments are there."""
    stored, _ = await index.add(_video("a"), space=SPACE, segments=_segments(_unit(1)))
    changed = await index.update(stored.id, external_id="new", metadata=None)
    assert changed is not None
    assert (changed.version, changed.external_id) == (2, "new")
    same = await index.update(stored.id, external_id="new", metadata={})
    assert same == changed
    with pytest.raises(VersionMismatchError):
        await index.delete(stored.id, version=1)
    assert await index.delete(stored.id, version=2)
    assert not await index.delete(stored.id, version=None)
    assert await _search(index, _unit(1)) == []


async def test_pages_run_from_new_to_old(index: PostgresIndex) -> None:
    """Following the last id of each page visits every video once; external_id filters."""
    for number in range(5):
        await index.add(_video(str(number), external_id=str(number % 2)), space=SPACE, segments=[])
    seen: list[str] = []
    before = None
    while page := await index.list(limit=2, before=before, external_id=None):
        seen += [stored.id for stored in page]
        before = page[-1].id
    assert len(set(seen)) == len(seen) == 5
    assert seen == sorted(seen, reverse=True)
    assert len(await index.list(limit=10, before=None, external_id="0")) == 3


async def test_two_indexes_of_one_database_start_together(
    postgres: str, make_index: OpenIndex
) -> None:
    """Replicas that meet an empty database at once both come up, and share what they write."""
    import asyncio

    both = [make_index(postgres) for _ in range(2)]
    try:
        await asyncio.gather(*(index.start() for index in both))
        added = await asyncio.gather(
            *(index.add(_video("a"), space=SPACE, segments=_segments(_unit(1))) for index in both)
        )
        assert sorted(created for _, created in added) == [False, True]
        assert added[0][0].id == added[1][0].id
        assert [(c.videos, c.segments) for c in await both[0].spaces()] == [(1, 1)]
    finally:
        for index in both:
            await index.close()


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    """The operator reads which setting is wrong, on one line, and no secret."""
    index = PostgresIndex("postgresql://someone:hunter2@127.0.0.1:1/none")
    with pytest.raises(IndexSetupError, match="VTAG_DATABASE_URL") as caught:
        await index.start()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
