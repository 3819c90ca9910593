"""Search against brute force: with filters, through the graph, page by page, while it is built."""

import asyncio
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.index import catalogue, milvus_scope, nearest_sql
from service.index.change import Scalar
from service.index.filter import Between, Condition, Exists, Filter, OneOf
from service.index.milvus import Milvus
from service.index.milvus_vectors import MilvusVectors
from service.index.postgres import PostgresIndex
from service.index.video_index import Hit, NewSegment, NewVideo, Space, Vector
from service.index.wish import After, Wish

SPACE = Space("demo", "0123456789ab", 0.4, 16)
VIDEOS, SEGMENTS, TWINS = 400, 10, 9
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Film:
    """A video of the test, as plain Python has it."""

    id: str
    external_id: str
    metadata: Mapping[str, Scalar]
    created_at: datetime
    vectors: Vector


@dataclass(frozen=True)
class Filled:
    """Where the films of all tests are, which leave them as they are."""

    dsn: str
    milvus: Path | None
    films: Sequence[Film]


def _metadata(number: int) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {
        "n": number,
        "share": number / VIDEOS,
        "tenth": number % 10,
        "camera": f"cam-{number % 7}",
        "ok": number % 2 == 0,
    }
    if number % 3 == 0:
        found["note"] = None if number % 2 else 1  # now and then of another type
    if number % 5 == 0:
        found["tenth"] = "zero"
    return found


@pytest.fixture(scope="module")
def filled(postgres_cluster: str) -> Iterator[Filled]:
    """A database that holds all films and the graph over them."""
    with _films_in(postgres_cluster, name="nearest", milvus=None) as films:
        yield films


@pytest.fixture(scope="module", params=["postgres", pytest.param("milvus", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest, postgres_cluster: str) -> Iterator[Filled]:
    """The same; or a database whose vectors are in Milvus."""
    if request.param == "postgres":
        yield request.getfixturevalue("filled")
        return
    path: Path = request.getfixturevalue("milvus_folder") / "nearest.db"
    with _films_in(postgres_cluster, name="nearest_milvus", milvus=path) as films:
        yield films


@contextmanager
def _films_in(cluster: str, *, name: str, milvus: Path | None) -> Iterator[Filled]:
    with asyncio.Runner() as runner:
        runner.run(_execute(cluster, f"CREATE DATABASE {name}"))
        dsn = cluster.replace("/postgres?", f"/{name}?", 1)
        try:
            yield runner.run(_fill(dsn, milvus))
        finally:
            runner.run(_execute(cluster, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _fill(dsn: str, milvus: Path | None) -> Filled:
    """Load clustered unit vectors in bulk, of videos that differ in all that can be filtered.

    The last are twins: they hold vectors of the first, so their cosines are equal.
    """
    draw = np.random.default_rng(7)
    centres = draw.normal(size=(40, SPACE.dimensions))
    which = draw.integers(0, 40, size=(VIDEOS, SEGMENTS))
    vectors = centres[which] + draw.normal(size=(VIDEOS, SEGMENTS, SPACE.dimensions)) * 0.5
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[-TWINS:] = vectors[0]
    vectors = vectors.astype(np.float32)
    index = _index(dsn, milvus, exact_segments=0)
    await index.start()
    try:
        batch = [_new(n, vectors[n]) for n in range(VIDEOS)]
        assert all(await index.add_many(batch[:150], space=SPACE))
        assert all(await index.add_many(batch[150:], space=SPACE))
        await index.build_graphs()
        await index.build_graphs()  # a second time there is nothing to do
        await index.database.run(
            lambda c: c.execute(
                "UPDATE videos SET created_at = $1::timestamptz + sha256::int * interval '1 day'",
                DAY_0,
            )
        )
        if milvus is not None:
            held = index.vectors
            assert isinstance(held, MilvusVectors)
            await held.settle()
        there = await index.list(limit=VIDEOS, before=None, external_id=None)
    finally:
        await index.close()
    numbered = {int(video.sha256): video for video in there}
    return Filled(
        dsn,
        milvus,
        [
            Film(video.id, video.external_id or "", video.metadata, video.created_at, vectors[n])
            for n, video in sorted(numbered.items())
        ],
    )


def _new(
    number: int, vectors: Vector, *, collection: str = "default"
) -> tuple[NewVideo, list[NewSegment]]:
    facts = (10.0, 25.0, 64, 48, "h264")
    video = NewVideo(f"{number}", 1, f"e{number % 20}", _metadata(number), *facts, collection)
    return video, [NewSegment(float(s), s + 1.0, vector) for s, vector in enumerate(vectors)]


def _index(dsn: str, milvus: Path | None, *, exact_segments: int) -> PostgresIndex:
    return PostgresIndex(
        dsn,
        exact_segments=exact_segments,
        milvus=None if milvus is None else Milvus(str(milvus)),
    )


@contextmanager
def _open(filled: Filled, *, exact_segments: int) -> Iterator[tuple[asyncio.Runner, PostgresIndex]]:
    with asyncio.Runner() as runner:
        index = _index(filled.dsn, filled.milvus, exact_segments=exact_segments)
        runner.run(index.start())
        try:
            yield runner, index
        finally:
            runner.run(index.close())


def _fits(condition: Condition, metadata: Mapping[str, Scalar]) -> bool:
    there = condition.key in metadata
    value = metadata.get(condition.key)
    if isinstance(condition, Exists):
        return there == condition.there
    if not there:
        return False
    if isinstance(condition, OneOf):
        return any(isinstance(each, bool) == isinstance(value, bool) and each == value
                   for each in condition.values)  # fmt: skip
    bounds = {
        operator.ge: condition.at_least,
        operator.gt: condition.above,
        operator.le: condition.at_most,
        operator.lt: condition.below,
    }
    for holds, bound in bounds.items():
        if bound is None:
            continue
        kind = str if isinstance(bound, str) else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool) or not holds(value, bound):
            return False
    return True


def _left(films: Sequence[Film], wanted: Filter) -> dict[tuple[str, int], Vector]:
    """(video, ordinal) -> vector of the segments that a filter leaves."""
    return {
        (film.id, ordinal): film.vectors[ordinal]
        for film in films
        if all(_fits(condition, film.metadata) for condition in wanted.metadata)
        and (wanted.external_ids is None or film.external_id in wanted.external_ids)
        and (wanted.created_from is None or film.created_at >= wanted.created_from)
        and (wanted.created_before is None or film.created_at < wanted.created_before)
        and film.id not in wanted.without
        for ordinal in range(SEGMENTS)
        if (wanted.from_seconds is None or ordinal + 1.0 > wanted.from_seconds)
        and (wanted.until_seconds is None or ordinal < wanted.until_seconds)
    }


def _nearest(left: dict[tuple[str, int], Vector], query: Vector, top_k: int) -> list[float]:
    cosines = sorted((float(vector @ query) for vector in left.values()), reverse=True)
    return cosines[:top_k]


_NUMBERS = st.integers(0, VIDEOS) | st.sampled_from([0.1, 0.25, 0.5, 0.9])
_WORDS = st.sampled_from(["cam-0", "cam-3", "cam-6", "zero", "a"])
_SCALARS = _NUMBERS | _WORDS | st.booleans() | st.none()
_KEYS = st.sampled_from(["n", "share", "tenth", "camera", "ok", "note", "none"])
_BOUNDS = st.sampled_from(["at_least", "above", "at_most", "below"])
_CONDITIONS = st.one_of(
    st.builds(OneOf, _KEYS, st.lists(_SCALARS, min_size=1, max_size=3).map(tuple)),
    st.builds(Exists, _KEYS, st.booleans()),
    st.builds(
        lambda key, bounds: Between(key, **bounds),
        _KEYS,
        st.dictionaries(_BOUNDS, _NUMBERS, min_size=1)
        | st.dictionaries(_BOUNDS, _WORDS, min_size=1),
    ),
)
_MAYBE_DAY = st.none() | st.integers(0, VIDEOS).map(lambda n: DAY_0 + timedelta(days=n))
_MAYBE_SECOND = st.none() | st.sampled_from([0.0, 2.5, 4.0, 9.5])
_FILTERS = st.builds(
    Filter,
    metadata=st.lists(_CONDITIONS, max_size=2).map(tuple),
    external_ids=st.none() | st.lists(st.sampled_from(["e1", "e7", "e8"]), max_size=3).map(tuple),
    created_from=_MAYBE_DAY,
    created_before=_MAYBE_DAY,
    from_seconds=_MAYBE_SECOND,
    until_seconds=_MAYBE_SECOND,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("exact_segments", [10_000, 0], ids=["exact", "graph"])
def test_filters_lose_nothing(
    anywhere: Filled, exact_segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a filter leaves, the nearest of it are found: exactly, or nearly so by the graph."""
    filled = anywhere
    # Milvus: videos that are left are named one by one, or what is said of them.
    monkeypatch.setattr(milvus_scope, "_FEW", exact_segments)
    recalls: list[float] = []
    with _open(filled, exact_segments=exact_segments) as (runner, index):

        @settings(
            max_examples=40,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(wanted=_FILTERS, target=st.integers(0, VIDEOS - TWINS - 1))
        def check(wanted: Filter, target: int) -> None:
            query = filled.films[target].vectors[0]
            left = _left(filled.films, wanted)
            hits = runner.run(
                index.search(query, space=SPACE, wish=Wish(10, "segment", 100, wanted=wanted))
            )
            found = [(hit.video_id, hit.segments[0].ordinal) for hit in hits]
            assert len(set(found)) == len(found) == min(10, len(left))
            cosines = [hit.segments[0].cosine for hit in hits]
            assert cosines == pytest.approx([left[key] @ query for key in found], abs=1e-5)
            assert cosines == sorted(cosines, reverse=True)
            worst = _nearest(left, query, 10)[-1] if left else 0.0
            recalls.append(float(np.mean([float(c >= worst - 1e-5) for c in cosines] or [1.0])))

        check()
    assert len(recalls) >= 30
    assert np.mean(recalls) >= (1.0 if exact_segments else 0.97)


def test_the_planner_takes_the_graph(filled: Filled) -> None:
    """With a filter and without, the statement of large places walks the graph of its place."""
    with _open(filled, exact_segments=0) as (runner, index):
        for wanted in (Filter(), Filter(metadata=(OneOf("tenth", (3,)),), from_seconds=2.0)):
            plan = runner.run(_plan(index, filled.films[0].vectors[0], wanted))
            assert "segments_graph_1_1" in plan, plan


async def _plan(index: PostgresIndex, query: Vector, wanted: Filter) -> str:
    async def work(connection: object) -> str:
        place = await catalogue.place(connection, "default", SPACE)
        assert place is not None
        assert place.has_graph
        statement, values = nearest_sql.propose(
            query, place, Wish(10, wanted=wanted), candidates=100
        )
        async with connection.transaction():  # type: ignore[attr-defined]
            await connection.execute(nearest_sql.settings(100))  # type: ignore[attr-defined]
            rows = await connection.fetch(f"EXPLAIN {statement}", *values)  # type: ignore[attr-defined]
        return "\n".join(row[0] for row in rows)

    return await index.database.run(work)


@pytest.mark.parametrize("group_by", ["video", "segment"])
@pytest.mark.parametrize("exact_segments", [10_000, 0], ids=["exact", "graph"])
def test_pages_are_one_long_answer(anywhere: Filled, exact_segments: int, group_by: str) -> None:
    """Page after page gives what one large page gives, each hit once, equal cosines included."""
    filled = anywhere
    with _open(filled, exact_segments=exact_segments) as (runner, index):
        query = filled.films[0].vectors[0]
        wish = Wish(40, group_by, 2, min_cosine=-0.5)  # type: ignore[arg-type]
        whole = runner.run(index.search(query, space=SPACE, wish=wish))
        pages: list[Hit] = []
        while len(pages) < 40:
            page = replace(wish, top_k=7, after=_after(pages, group_by))
            pages += runner.run(index.search(query, space=SPACE, wish=page))
        assert [_key(hit) for hit in pages[:40]] == [_key(hit) for hit in whole]
        assert len({_key(hit) for hit in pages}) == len(pages)
        twins = {filled.films[0].id, *(film.id for film in filled.films[-TWINS:])}
        assert {hit.video_id for hit in whole[: TWINS + 1]} == twins


def test_pages_go_on_although_the_graph_misses_some(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video whose best segment was missed belongs on a page before; this one is full anyway."""
    real = nearest_sql.propose

    def lossy(*arguments: Any, **options: Any) -> nearest_sql.Statement:
        statement, values = real(*arguments, **options)
        known = "SELECT v.sha256::int % 3 > 0 OR s.ordinal > 4 FROM videos v WHERE v.id = video_id"
        return statement.replace(" WHERE s.", f" WHERE ({known}) AND s.", 1), values

    monkeypatch.setattr(nearest_sql, "propose", lossy)
    with _open(filled, exact_segments=0) as (runner, index):
        query = filled.films[7].vectors[3]
        seen: list[Hit] = []
        while len(seen) < 90:
            wish = Wish(10, "video", 3, after=_after(seen, "video"))
            page = runner.run(index.search(query, space=SPACE, wish=wish))
            assert len(page) == 10
            seen += page
    assert len({hit.video_id for hit in seen}) == len(seen)


def _key(hit: Hit) -> tuple[object, ...]:
    return (hit.video_id, *((part.ordinal, part.cosine) for part in hit.segments))


def _after(hits: Sequence[Hit], group_by: str) -> After | None:
    if not hits:
        return None
    best = hits[-1].segments[0]
    ordinal = best.ordinal if group_by == "segment" else None
    return After(best.cosine, hits[-1].video_id, ordinal, len(hits))


def test_reads_go_on_while_a_graph_is_built(filled: Filled) -> None:
    """Searches and additions during the building are answered, and find what was added."""
    with _open(filled, exact_segments=0) as (runner, index):
        runner.run(_search_while_building(filled, index))


async def _search_while_building(filled: Filled, index: PostgresIndex) -> None:
    name, films = "building", filled.films
    await index.create_collection(name)
    other = PostgresIndex(filled.dsn, exact_segments=0)  # a second service builds at the same time
    await other.start()
    try:
        batch = [_new(n, films[n].vectors, collection=name) for n in range(100)]
        await index.add_many(batch, space=SPACE)
        building = asyncio.gather(index.build_graphs(), other.build_graphs())
        rounds = 0
        while not building.done() or rounds < 3:
            vector = films[200 + rounds % 100].vectors[rounds // 100]  # no two are the same
            new, segments = _new(1000 + rounds, vector[None], collection=name)
            stored, _ = await index.add(new, space=SPACE, segments=segments)
            [hit] = await index.search(vector, space=SPACE, wish=Wish(1), collection=name)
            assert hit.video_id == stored.id
            rounds += 1
        await building
        [hit] = await index.search(films[0].vectors[0], space=SPACE, wish=Wish(1), collection=name)
        assert hit.segments[0].cosine == pytest.approx(1.0)
        place = await index.database.run(lambda c: catalogue.place(c, name, SPACE))
        assert place is not None
        assert place.has_graph
        await index.delete_collection(name)
        await index.build_graphs()  # it also removes what no collection needs
        graphs = await index.database.run(
            lambda c: c.fetch("SELECT relname FROM pg_class WHERE relname ~ '^segments_graph_'")
        )
        assert [row["relname"] for row in graphs] == ["segments_graph_1_1"]
    finally:
        await other.close()
