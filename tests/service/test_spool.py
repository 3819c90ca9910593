"""Uploads on disk: bounded, private, gone on every path."""

import asyncio
import hashlib
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.errors import ApiError
from service.spool import Spool

pytestmark = pytest.mark.anyio


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An open spool for files of up to 3 MiB."""
    spool = Spool(tmp_path / "spool", max_bytes=3 * 2**20, reserve_bytes=0)
    spool.open()
    return spool


async def test_a_file_holds_what_was_fed_and_is_removed(spool: Spool) -> None:
    """Bytes and digest are right, nobody else may read it, and it is gone at the end."""
    data = bytes(range(256)) * 8192
    async with spool.file() as file:
        for start in range(0, len(data), 10_000):
            file.feed(data[start : start + 10_000])
            await file.drain()
        await file.drain(everything=True)
        assert file.path.read_bytes() == data
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert list(spool.folder.iterdir()) == []


async def test_the_cap_holds_to_the_byte(spool: Spool) -> None:
    """At the limit it is taken, one byte more is 413 and leaves nothing."""
    async with spool.file() as file:
        file.feed(b"x" * (3 * 2**20))
    with pytest.raises(ApiError) as caught:
        async with spool.file() as file:
            file.feed(b"x" * (3 * 2**20 + 1))
    assert (caught.value.status, caught.value.limit) == (413, 3 * 2**20)
    assert list(spool.folder.iterdir()) == []


async def test_a_full_disk_is_told_before_and_while_writing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the reserve nothing is begun; a write that finds no room is 507 too."""
    greedy = Spool(tmp_path / "spool", max_bytes=1, reserve_bytes=2**62)
    with pytest.raises(ApiError) as caught:
        async with greedy.file():
            pytest.fail("there is no room")
    assert caught.value.code == "spool_full"

    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async with spool.file() as file:
        file.feed(b"x")
        monkeypatch.setattr("service.spool.os.write", no_room)
        with pytest.raises(ApiError) as caught:
            await file.drain(everything=True)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (507, "30")
    monkeypatch.undo()
    assert list(spool.folder.iterdir()) == []


async def test_a_write_that_goes_on_keeps_its_descriptor(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves while bytes are written does not have them written into the next open file."""
    begun, go_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: memoryview) -> int:
        begun.set()
        assert go_on.wait(30)
        return write(descriptor, data)

    monkeypatch.setattr("service.spool.os.write", slow)

    async def upload() -> None:
        async with spool.file() as file:
            file.feed(b"of one client")
            await file.drain(everything=True)

    leaving = asyncio.create_task(upload())
    assert await asyncio.to_thread(begun.wait, 30)
    for _ in range(2):  # cancelled again while it ends
        leaving.cancel()
        await asyncio.sleep(0.01)
    with (tmp_path / "of another").open("wb") as other:
        go_on.set()
        await asyncio.gather(leaving, return_exceptions=True)
        assert os.fstat(other.fileno()).st_size == 0
    assert leaving.cancelled()
    assert list(spool.folder.iterdir()) == []


async def test_leftovers_of_a_killed_service_are_removed_at_start(spool: Spool) -> None:
    """Opening the spool empties it."""
    (spool.folder / "left").write_bytes(b"video")
    spool.open()
    assert list(spool.folder.iterdir()) == []


async def test_disk_usage_is_asked_of_the_spools_own_disk(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve is about the file system uploads go to."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=10)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    async with spool.file():
        assert asked == [spool.folder]
