"""The embedded Postgres: what a killed service leaves behind never stops the next one."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from service.index import postmaster_guard
from service.index.embedded import EmbeddedPostgres
from service.index.video_index import IndexSetupError
from tests.service.processes import kill_all

pytestmark = pytest.mark.anyio

_OWNER = """
import asyncio, sys
from pathlib import Path
from service.index.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder of its own. pytest closes its folders to others, and root's Postgres is another."""
    with tempfile.TemporaryDirectory(prefix="vtag-test-") as folder:
        yield Path(folder)


async def _query(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _gone(data: Path, *, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while list(postmaster_guard.running_in(data)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


async def test_it_starts_stops_and_keeps_its_data(state: Path) -> None:
    """After stop no process is left; a second start finds the data; pgvector is there."""
    server = EmbeddedPostgres(state / "postgres")
    await server.start()
    await _query(server, "CREATE TABLE kept AS SELECT 7 AS seven")
    await _query(server, "CREATE EXTENSION vector")
    await server.stop()
    await server.stop()
    assert server.pid is None
    assert not list(postmaster_guard.running_in(state / "postgres"))
    await server.start()
    assert await _query(server, "SELECT seven FROM kept") == 7
    await server.stop()


async def test_a_stale_lock_that_names_a_stranger_is_removed(state: Path) -> None:
    """postmaster.pid and the socket's lock name a live process that is not Postgres."""
    server = EmbeddedPostgres(state / "postgres")
    await server.start()
    lock = (server.folder / "postmaster.pid").read_text().splitlines()
    await server.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        lock[0] = str(stranger.pid)
        (server.folder / "postmaster.pid").write_text("\n".join(lock) + "\n")
        (server.folder / ".s.PGSQL.5432.lock").write_text("\n".join(lock[:5]) + "\n")
        await server.start()
        assert await _query(server, "SELECT 1") == 1
        await server.stop()
        assert stranger.poll() is None, "the stranger must not be harmed"
        stranger.kill()


async def test_it_reopens_at_once_after_all_its_processes_were_killed(state: Path) -> None:
    """kill -9 of the postmaster alone, then of everything, each followed by a start at once."""
    for only_postmaster in (True, False):
        server = EmbeddedPostgres(state / "postgres")
        await server.start()
        await _query(server, "CREATE TABLE IF NOT EXISTS kept (n int)")
        await _query(server, "INSERT INTO kept VALUES (1)")
        assert server.pid is not None
        found = [psutil.Process(server.pid)]
        if not only_postmaster:
            found += list(postmaster_guard.running_in(server.folder))
        if server._watch is not None:  # the start below must be the one that brings it back
            server._watch.cancel()
        kill_all(found)
        again = EmbeddedPostgres(state / "postgres")
        await again.start()
        assert await _query(again, "SELECT count(*) FROM kept") == (1 if only_postmaster else 2)
        await again.stop()
        await server.stop()


async def test_it_comes_back_when_it_is_killed_under_a_living_service(state: Path) -> None:
    """The watcher starts it again by itself."""
    server = EmbeddedPostgres(state / "postgres")
    await server.start()
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(90):
        while server.pid in (None, first) or not await _answers(server):
            await asyncio.sleep(0.1)
    await server.stop()


async def test_it_comes_back_although_it_was_not_ready_in_time(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The watcher goes on trying after a start that took too long, and lets itself be stopped."""
    server = EmbeddedPostgres(state / "postgres")
    await server.start()
    first, server._ready_seconds = server.pid, 0.0
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(90):
        while "not ready in time" not in caplog.text:
            await asyncio.sleep(0.05)
        server._ready_seconds = 60.0
        while server.pid in (None, first) or not await _answers(server):
            await asyncio.sleep(0.1)
    await server.stop()
    assert server.pid is None


async def _answers(server: EmbeddedPostgres) -> bool:
    try:
        return await _query(server, "SELECT 1") == 1
    except (OSError, asyncpg.PostgresError):
        return False


async def test_it_ends_with_a_service_that_is_killed(state: Path) -> None:
    """kill -9 of the owner: Postgres ends by itself, and the next owner starts at once."""
    data = state / "postgres"
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(data)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    postmaster = int(owner.stdout.readline())
    assert psutil.pid_exists(postmaster)
    owner.kill()
    owner.wait()
    server = EmbeddedPostgres(data)
    await server.start()
    assert server.pid != postmaster
    assert await _query(server, "SELECT 1") == 1
    await server.stop()
    assert _gone(data)


async def test_a_long_path_gets_a_short_private_socket(state: Path) -> None:
    """Unix sockets end at 107 bytes: the socket moves to a private folder, gone after stop."""
    folder = state / ("d" * 90) / "postgres"
    server = EmbeddedPostgres(folder)
    await server.start()
    sockets = server._sockets
    assert sockets != server.folder
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert await _query(server, "SELECT 1") == 1
    await server.stop()
    assert not sockets.exists()


async def test_a_folder_with_something_else_in_it_is_refused(state: Path) -> None:
    """Nothing is written into a folder that holds other things; one line says so."""
    folder = state / "postgres"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(IndexSetupError, match="not empty"):
        await EmbeddedPostgres(folder).start()
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


async def test_data_of_another_version_is_refused(state: Path) -> None:
    """A cluster of another major version is left alone."""
    folder = state / "postgres"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("12\n")
    with pytest.raises(IndexSetupError, match="of Postgres 12"):
        await EmbeddedPostgres(folder).start()
