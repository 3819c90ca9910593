"""Graphs are built, and places read, where what the fast way needs is not there."""

from functools import partial
from typing import Any

import asyncpg
import numpy as np
import pytest

from service.index import catalogue, graphs, nearest_sql
from service.index.filter import Filter, OneOf
from service.index.postgres import PostgresIndex
from service.index.segment import NewSegment
from service.index.space import Space
from service.index.video_index import Batch, NewVideo, Vector
from service.index.wish import Wish

pytestmark = pytest.mark.anyio

SPACE = Space("graphs", "0", 0.0, 8)


async def test_a_graph_is_built_by_one_process_where_shared_memory_is_small(
    postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What several processes would share is more than the machine has; it is built all the same."""
    monkeypatch.setattr(graphs, "_MIN_MEMORY_BYTES", 1 << 40)
    vectors = np.eye(8, dtype=np.float32)
    index = PostgresIndex(postgres, exact_segments=0)
    await index.start()
    try:
        segments = [NewSegment(float(n), n + 1.0, vector) for n, vector in enumerate(vectors)]
        video = NewVideo("1", 1, None, {}, 8.0, 25.0, 64, 48, "h264")
        assert all(await index.add_many([(video, segments)], space=SPACE))
        # Else a table of this size is not worth a second process.
        for statement in (
            "ALTER TABLE segments SET (parallel_workers = 1)",
            "ALTER ROLE CURRENT_USER SET max_parallel_maintenance_workers = 1",
        ):
            await index.database.run(partial(_execute, statement=statement))
        with caplog.at_level("INFO", logger="vtag"):
            await index.build_graphs()
        valid = await index.database.run(
            lambda c: c.fetchval(
                "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw' AND i.indisvalid"
            )
        )
    finally:
        await index.close()
        connection = await asyncpg.connect(postgres)
        await connection.execute("ALTER ROLE CURRENT_USER RESET max_parallel_maintenance_workers")
        await connection.close()
    assert valid == 1
    assert "building a graph with one process" in caplog.text


async def _execute(connection: Any, statement: str) -> None:
    await connection.execute(statement)


async def test_a_filter_reads_segments_by_video_before_there_are_statistics(postgres: str) -> None:
    """The planner knows nothing of a table that was just loaded, and must not read all of it."""
    index = PostgresIndex(postgres)
    await index.start()
    try:
        vectors = np.eye(8, dtype=np.float32)
        segments = [NewSegment(float(n), n + 1.0, vector) for n, vector in enumerate(vectors)]
        facts = (8.0, 25.0, 64, 48, "h264")
        batch: Batch = [
            (NewVideo(f"{number}", 1, None, {"kind": number % 10}, *facts), segments)
            for number in range(300)
        ]
        assert all(await index.add_many(batch, space=SPACE))
        wish = Wish(10, "segment", 10, wanted=Filter(metadata=(OneOf("kind", (0,)),)))
        plans = await index.database.run(partial(_plans, query=vectors[0], wish=wish))
    finally:
        await index.close()
    for plan in plans:
        assert "segments_pkey" in plan
        assert "segments_place" not in plan


async def _plans(connection: Any, *, query: Vector, wish: Wish) -> list[str]:
    place = await catalogue.place(connection, "default", SPACE)
    assert place is not None
    found = []
    for among in (None, ("vid_1", "vid_2")):
        statement, values = nearest_sql.exact(query, place, wish, among=among)
        rows = await connection.fetch(f"EXPLAIN {statement}", *values)
        found.append("\n".join(row[0] for row in rows))
    return found
