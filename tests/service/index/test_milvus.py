"""Vectors in Milvus: found only with their rows, removed with them, repaired after a crash."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.index import milvus_scope
from service.index.change import VideoChange
from service.index.filter import Filter, OneOf
from service.index.milvus import Milvus
from service.index.milvus_debts import MilvusDebts
from service.index.milvus_vectors import MilvusVectors
from service.index.postgres import PostgresIndex
from service.index.segment import NewSegment
from service.index.space import Space
from service.index.vectors import segment_rows
from service.index.video_index import IndexSetupError, IndexUnavailableError, NewVideo
from service.index.wish import Wish
from tests.faults.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SPACE = Space("demo", "0123456789ab", 0.4, 8)
VECTOR = np.eye(8, dtype=np.float32)[0]
SEGMENTS = [NewSegment(float(n), n + 1.0, VECTOR) for n in range(3)]


@pytest.fixture
def path(milvus_folder: Path, postgres: str) -> Path:
    """A file of milvus-lite for one test."""
    return milvus_folder / f"{postgres.partition('?')[0].rpartition('/')[2]}.db"


@pytest.fixture
def milvus(path: Path) -> Milvus:
    """What the index uses; the test looks behind it."""
    return Milvus(str(path))


@pytest.fixture
async def index(postgres: str, milvus: Milvus) -> AsyncIterator[PostgresIndex]:
    """An open, empty index."""
    index = PostgresIndex(postgres, milvus=milvus)
    await index.start()
    yield index
    await index.close()


def _video(number: int, **facts: object) -> NewVideo:
    return NewVideo(f"{number}", 10, None, facts or None, 8.0, 25.0, 64, 48, "h264")  # type: ignore[arg-type]


async def _name(index: PostgresIndex, space_id: int = 1) -> str:
    name = await index.database.run(lambda c: c.fetchval("SELECT name FROM vector_store"))
    return f"vtag_{name}_{space_id}"


async def _held(index: PostgresIndex, milvus: Milvus) -> list[dict[str, object]]:
    fields = ["id", "video_id", "ordinal", "metadata"]
    return await milvus.read(await _name(index), "id >= 0", fields=fields)


async def _found(index: PostgresIndex, wanted: Filter | None = None) -> list[str]:
    wish = Wish(100, wanted=wanted or Filter())
    hits = await index.search(VECTOR, space=SPACE, wish=wish)
    assert all(len(hit.segments) == 3 for hit in hits)
    return [hit.video_id for hit in hits]


async def _settle(index: PostgresIndex, milvus: Milvus) -> None:
    """Settle as after a long time: no write is young."""
    name = (await _name(index)).removesuffix("_1")
    debts = MilvusDebts(
        index.database, milvus, name=lambda number: f"{name}_{number}", dead_seconds=0
    )
    await debts.settle()


class _LostError(Exception):
    """Stands for whatever may end a transaction."""


async def _write_and_lose(index: PostgresIndex, milvus: Milvus, connection: Any) -> None:
    async with index.vectors.writing(connection, space=SPACE, space_id=1) as writer:
        video_id = await connection.fetchval(
            "INSERT INTO videos (collection_id, id, sha256, size_bytes, width, height, codec)"
            " VALUES (1, 'vid_lost', 'lost', 1, 1, 1, '') RETURNING id"
        )
        await writer.write(segment_rows(video_id, SEGMENTS, place=(1, 1)))
        assert len(await _held(index, milvus)) == 6
        await _settle(index, milvus)  # not this one: its transaction lives
        assert len(await _held(index, milvus)) == 6
        raise _LostError


async def test_a_write_that_did_not_commit_is_not_found_and_goes(
    index: PostgresIndex, milvus: Milvus
) -> None:
    """Its vectors are in Milvus and belong to no row; a write that is under way keeps its own."""
    stored, _ = await index.add(_video(0), space=SPACE, segments=SEGMENTS)
    connection = await index.database.connect()
    try:
        with pytest.raises(_LostError):
            await _write_and_lose(index, milvus, connection)
    finally:
        await connection.close()
    assert await _found(index) == [stored.id]
    assert len(await _held(index, milvus)) == 6
    await _settle(index, milvus)
    assert {row["video_id"] for row in await _held(index, milvus)} == {stored.id}
    assert await _found(index) == [stored.id]


async def test_what_is_removed_goes_from_milvus_too(index: PostgresIndex, milvus: Milvus) -> None:
    """A video, a collection and a space: first the rows, which is what counts, then the vectors."""
    other = Space("demo", "0123456789ab", 0.5, 8)
    await index.create_collection("cats")
    ids = []
    for number in range(3):
        stored, _ = await index.add(_video(number), space=SPACE, segments=SEGMENTS)
        ids.append(stored.id)
    cat = NewVideo("c", 10, None, None, 8.0, 25.0, 64, 48, "h264", collection="cats")
    await index.add(cat, space=SPACE, segments=SEGMENTS)
    await index.embed(ids[0], space=other, segments=SEGMENTS)
    assert len(await _held(index, milvus)) == 12
    await index.delete(ids[1], version=None)
    await index.delete_collection("cats")
    assert sorted(await _found(index)) == [ids[0], ids[2]]
    await index.activate(other, collection="default", without=ids[2:])
    await index.remove_space(SPACE, collection="default")
    assert await _found(index) == []
    await _settle(index, milvus)
    assert await _held(index, milvus) == []
    left = await milvus.read(await _name(index, 2), "id >= 0", fields=["video_id"])
    assert [row["video_id"] for row in left] == [ids[0]] * 3
    assert list(await index.embeddings(ids, space=other)) == [ids[0]]


async def test_filters_see_a_change_at_once(
    index: PostgresIndex, milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Milvus knows of it, by asking Postgres; then Milvus knows, and has the vector."""
    monkeypatch.setattr(milvus_scope, "_FEW", 1)
    ids = []
    for number in range(4):
        stored, _ = await index.add(_video(number, n=1), space=SPACE, segments=SEGMENTS)
        ids.append(stored.id)
    monkeypatch.setattr(MilvusDebts, "look", lambda _: None)
    for video_id in ids[2:]:
        await index.change(video_id, VideoChange(metadata={"n": 2}), version=None)
    wanted = [Filter((OneOf("n", (n,)),)) for n in (1, 2)]
    for _ in ("before", "after"):
        assert sorted(await _found(index, wanted[0])) == ids[:2]
        assert sorted(await _found(index, wanted[1])) == ids[2:]
        await _settle(index, milvus)
        debts = await index.database.run(
            lambda c: c.fetchval("SELECT count(*) FROM vector_changes")
        )
        assert debts == 0
    assert {(row["video_id"], str(row["metadata"])) for row in await _held(index, milvus)} == {
        (video_id, str({"n": 1 if video_id in ids[:2] else 2})) for video_id in ids
    }


async def test_the_wrong_place_is_refused_in_one_line(postgres: str, path: Path) -> None:
    """Vectors in Postgres, in Milvus and in another Milvus are not mistaken for each other."""
    inside = PostgresIndex(postgres)
    await inside.start()
    stored, _ = await inside.add(_video(0), space=SPACE, segments=SEGMENTS)
    await inside.close()
    await _refused(PostgresIndex(postgres, milvus=Milvus(str(path))), "are in Postgres")
    inside = PostgresIndex(postgres)
    await inside.start()
    await inside.delete(stored.id, version=None)
    await inside.close()
    index = PostgresIndex(postgres, milvus=Milvus(str(path)))
    await index.start()
    await index.add(_video(0), space=SPACE, segments=SEGMENTS)
    second = PostgresIndex(postgres, milvus=Milvus(str(path.with_name("other.db"))))
    await _refused(second, "another Milvus")
    await index.close()
    await _refused(PostgresIndex(postgres), "are in Milvus")
    nowhere = Milvus("http://me:hunter2@127.0.0.1:1")
    await _refused(PostgresIndex(postgres, milvus=nowhere), "VTAG_VECTOR_URL: cannot be used")


async def _refused(index: PostgresIndex, words: str) -> None:
    with pytest.raises(IndexSetupError, match=words) as caught:
        await index.start()
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    await index.close()


@pytest.fixture
def server(path: Path) -> Iterator[TcpProxy]:
    """A Milvus that speaks the protocol of a server, behind a network."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(path))
    proxy = TcpProxy(("127.0.0.1", port))
    try:
        yield proxy
    finally:
        proxy.close()
        running.stop(grace=2).wait()
        database.close()


@pytest.mark.timeout(300)
async def test_a_server_that_goes_away_and_comes_back(postgres: str, server: TcpProxy) -> None:
    """Meanwhile each call says so soon, and nothing is half written; then all is as before."""
    milvus = Milvus(f"http://127.0.0.1:{server.port}", token="me:secret")  # noqa: S106 - of no server
    index = PostgresIndex(postgres, milvus=milvus)
    await index.start()
    try:
        assert isinstance(index.vectors, MilvusVectors)
        stored, _ = await index.add(_video(0), space=SPACE, segments=SEGMENTS)
        await index.build_graphs()
        assert await _found(index) == [stored.id]
        server.deaf = True
        server.cut()
        with pytest.raises(IndexUnavailableError):
            await index.ping()
        with pytest.raises(IndexUnavailableError):
            await _found(index)
        with pytest.raises(IndexUnavailableError):
            await index.add(_video(1), space=SPACE, segments=SEGMENTS)
        assert await index.find("1") is None
        assert await index.get(stored.id) is not None  # records need no vectors
        server.heal()
        async with asyncio.timeout(60):
            while not await _answers(index):
                await asyncio.sleep(0.2)
        assert await _found(index) == [stored.id]
        again, created = await index.add(_video(1), space=SPACE, segments=SEGMENTS)
        assert created
        assert sorted(await _found(index)) == sorted([stored.id, again.id])
    finally:
        await index.close()


async def _answers(index: PostgresIndex) -> bool:
    try:
        await index.ping()
    except IndexUnavailableError:
        return False
    return True


_ENDLESS = """
import asyncio, sys
from service.index.milvus import Milvus
from service.index.postgres import PostgresIndex
from tests.service.index.test_milvus import SEGMENTS, SPACE, _video

async def write(index, lane):
    for number in range(10_000):
        stored, _ = await index.add(_video(lane * 10_000 + number), space=SPACE, segments=SEGMENTS)
        print(stored.id, flush=True)
        if number % 5 == 4:
            await index.delete(stored.id, version=None)
            print("-" + stored.id, flush=True)

async def main():
    index = PostgresIndex(sys.argv[1], milvus=Milvus(sys.argv[2]))
    await index.start()
    await asyncio.gather(*(write(index, lane) for lane in range(4)))

asyncio.run(main())
"""


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_to_kills(postgres: str, path: Path) -> None:
    """Killed again and again between adding and removing: whole or not there, and no remains."""
    there: set[str] = set()
    gone: set[str] = set()
    unsure: set[str] = set()
    for round_ in range(3):
        lines = await asyncio.to_thread(_write_until_killed, postgres, path, 30 + 17 * round_)
        gone |= {line[1:] for line in lines if line.startswith("-")}
        there |= {line for line in lines if not line.startswith("-")}
        unsure |= _unsure(lines)
        milvus = Milvus(str(path))
        index = PostgresIndex(postgres, milvus=milvus)
        await index.start()
        try:
            found = set(await _found_all(index))
            listed = {
                video.id for video in await index.list(limit=10_000, before=None, external_id=None)
            }
            assert found == listed
            assert not there - gone - unsure - found
            await _settle(index, milvus)
            held = await _held(index, milvus)
            assert {str(row["video_id"]) for row in held} == listed
            assert len(held) == 3 * len(listed)
        finally:
            await index.close()
    assert len(there) > 60


async def _found_all(index: PostgresIndex) -> list[str]:
    hits = await index.search(VECTOR, space=SPACE, wish=Wish(5000, per_video=3))
    assert all(len(hit.segments) == 3 for hit in hits)
    return [hit.video_id for hit in hits]


def _unsure(lines: list[str]) -> set[str]:
    """Videos that were acknowledged last in their lanes: they may have been about to be removed."""
    return {line for line in lines[-8:] if not line.startswith("-")}


def _write_until_killed(dsn: str, path: Path, acknowledged: int) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, dsn, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if len(lines) == acknowledged:
            process.send_signal(signal.SIGKILL)
            break
    lines += [line.strip() for line in process.stdout]
    process.wait()
    return lines
