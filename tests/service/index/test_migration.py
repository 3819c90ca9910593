"""Databases of every age come to one shape, keep what they hold, and are not taken back in time."""

import asyncio
import re
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest

from service.index.migration import script
from service.index.postgres import PostgresIndex
from service.index.video_index import IndexSetupError
from service.index.wish import Wish
from tests.service.index.first_database import OTHER_VIDEO, SPACE, VIDEO, make

pytestmark = pytest.mark.anyio


async def test_a_database_of_the_first_version_answers_as_before(postgres: str) -> None:
    """Videos, typed metadata, versions, vectors and jobs are there after the upgrade."""
    await make(postgres)
    index = PostgresIndex(postgres)
    await index.start()
    try:
        stored = await index.get(VIDEO)
        assert stored is not None
        assert (stored.version, stored.external_id, stored.segments) == (3, "cam-1", 3)
        assert stored.metadata == {"n": 1, "s": "é", "z": None}
        assert stored.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert stored.spaces == ("demo@0123456789ab/0.4", "demo@0123456789ab/0.5")
        assert await index.find("aa") == stored
        listed = await index.list(limit=5, before=None, external_id=None)
        assert [video.id for video in listed] == [OTHER_VIDEO, VIDEO]
        contents = [(each.videos, each.segments) for each in await index.spaces()]
        assert contents == [(2, 3), (1, 1)]
        query = np.eye(8, dtype=np.float32)[0]
        hits = await index.search(query, space=SPACE, wish=Wish(10))
        assert [hit.video_id for hit in hits] == [VIDEO, OTHER_VIDEO]
        assert [part.cosine for part in hits[0].segments] == pytest.approx([1.0, 0.6])
        jobs = await index.database.run(lambda c: c.fetchval("SELECT count(*) FROM job_pieces"))
        assert jobs == 1
        assert await index.delete(VIDEO, version=3)
        assert [each.segments for each in await index.spaces()] == [1]
    finally:
        await index.close()


async def test_an_upgraded_database_has_the_shape_of_a_new_one(postgres: str) -> None:
    """Columns, constraints, indexes and triggers are those of tables made today."""
    new = await _shape(postgres)
    await _execute(postgres, "DROP SCHEMA vtag CASCADE; DROP EXTENSION vector")
    await make(postgres)
    assert await _shape(postgres) == new


async def test_services_that_start_together_upgrade_once(postgres: str) -> None:
    """Three that meet an old database at once all come up, and nothing is done twice."""
    await make(postgres)
    indexes = [PostgresIndex(postgres) for _ in range(3)]
    try:
        await asyncio.gather(*(index.start() for index in indexes))
        found = await asyncio.gather(*(index.get(VIDEO) for index in indexes))
        assert {None if video is None else video.version for video in found} == {3}
    finally:
        for index in indexes:
            await index.close()


async def test_a_newer_database_is_refused_in_one_line(postgres: str) -> None:
    """Code that does not know the last step does not touch the data, and says which it knows."""
    await _shape(postgres)
    await _execute(postgres, "UPDATE vtag.alembic_version SET version_num = 'r9999'")
    index = PostgresIndex(postgres)
    with pytest.raises(IndexSetupError, match="r9999 by a newer version") as caught:
        await index.start()
    assert "\n" not in str(caught.value)
    await index.close()


async def test_a_step_that_fails_leaves_the_database_as_it_was(postgres: str) -> None:
    """All steps are one transaction: what cannot be finished is not begun."""
    await make(postgres)
    # Nothing may hold a table of this name; the first step does not mind, it made none.
    await _execute(postgres, "CREATE TABLE vtag.alembic_version (version_num bigint)")
    index = PostgresIndex(postgres)
    with pytest.raises(IndexSetupError):
        await index.start()
    await index.close()
    connection = await asyncpg.connect(postgres)
    try:
        assert await connection.fetchval("SELECT count(*) FROM vtag.segments") == 4
    finally:
        await connection.close()


def test_a_database_that_is_up_to_date_needs_nothing() -> None:
    """No statement is run where no step is missing; the first step alone can be asked for."""
    assert "CREATE TABLE IF NOT EXISTS videos" in script(None, until="r0001")
    last = max(re.findall(r"'(r[0-9]{4})'", script(None)))
    assert script(last) == ""


async def _shape(dsn: str) -> dict[str, list[str]]:
    """What a started index made of a database: columns, constraints, indexes, triggers."""
    index = PostgresIndex(dsn)
    await index.start()
    try:

        async def lines(query: str) -> list[str]:
            rows = await index.database.run(lambda c: c.fetch(query))
            return sorted(str(tuple(row)) for row in rows)

        return {
            "columns": await lines(
                "SELECT table_name, column_name, data_type, column_default, is_nullable,"
                " is_identity FROM information_schema.columns WHERE table_schema = 'vtag'"
            ),
            "constraints": await lines(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
                " FROM pg_constraint WHERE connamespace = 'vtag'::regnamespace"
            ),
            "indexes": await lines(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'vtag' "
            ),
            "triggers": await lines(
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
            ),
        }
    finally:
        await index.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
