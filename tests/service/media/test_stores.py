"""What every store of videos does: a folder, and a bucket on a real S3 server."""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from service.media.folder import FolderStore
from service.media.s3 import BucketStore
from service.media.store import (
    MediaFullError,
    MediaMissingError,
    MediaSetupError,
    MediaStore,
    MediaUnavailableError,
)
from tests.s3_server import S3Server

pytestmark = pytest.mark.anyio


def write(path: Path, *, size: int) -> str:
    """Write random bytes; return their digest."""
    data = os.urandom(size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


async def read(store: MediaStore, sha256: str, *, start: int, length: int) -> bytes:
    """All chunks together."""
    return b"".join([chunk async for chunk in store.read(sha256, start=start, length=length)])


async def test_bytes_come_back_whole_and_in_parts(
    make_store: Callable[[], MediaStore], tmp_path: Path
) -> None:
    """From one chunk to several parts of an upload; another process finds them by their digest."""
    writer = make_store()
    await writer.start()
    for size in (1, 70_000, 20_000_000):
        source = tmp_path / "upload"
        sha256 = write(source, size=size)
        data = source.read_bytes()
        await writer.put(source, sha256=sha256)
        await writer.put(source, sha256=sha256)
        source.unlink()
        reader = make_store()
        assert await reader.size(sha256) == size
        assert await read(reader, sha256, start=0, length=size) == data
        assert (
            await read(reader, sha256, start=size // 3, length=size // 2)
            == (data[size // 3 :][: size // 2])
        )
        async with reader.local(sha256) as path:
            assert path.read_bytes() == data


async def test_what_was_deleted_is_gone(store: MediaStore, tmp_path: Path) -> None:
    """Deleting twice is fine; reading says that it is not there, and leaves nothing behind."""
    await store.start()
    sha256 = write(tmp_path / "upload", size=1000)
    await store.put(tmp_path / "upload", sha256=sha256)
    assert [file.sha256 for page in [p async for p in store.files()] for file in page] == [sha256]
    for _ in range(2):
        await store.delete(sha256)
    assert await store.size(sha256) is None
    assert [file for page in [p async for p in store.files()] for file in page] == []
    with pytest.raises(MediaMissingError):
        await read(store, sha256, start=0, length=1)
    with pytest.raises(MediaMissingError):
        async with store.local(sha256):
            pass


async def test_a_place_belongs_to_the_first_who_claims_it(
    make_store: Callable[[], MediaStore],
) -> None:
    """The second is told so, the first may come again; the claim is no video."""
    store = make_store()
    await store.start()
    assert await store.claim("first")
    assert not await make_store().claim("second")
    assert await make_store().claim("first")
    assert [file for page in [p async for p in store.files()] for file in page] == []


async def test_files_of_a_folder_are_read_only_and_named_by_us(tmp_path: Path) -> None:
    """Nothing can be executed or has an ending; the upload is linked, not copied."""
    store = FolderStore(tmp_path / "media", reserve_bytes=0, writer="me")
    await store.start()
    source = tmp_path / "evil.m3u8"
    sha256 = write(source, size=10)
    source.chmod(0o755)
    await store.put(source, sha256=sha256)
    path = tmp_path / "media" / sha256[:2] / sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert path.stat().st_ino == source.stat().st_ino
    with pytest.raises(ValueError, match="no digest"):
        await store.size("../../etc/passwd")


async def test_a_folder_on_another_disk_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be linked the bytes are copied, unless they would use up the reserve."""

    def refuse(*_: object) -> None:
        raise OSError(18, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    store = FolderStore(tmp_path / "media", reserve_bytes=0, writer="me")
    await store.start()
    sha256 = write(tmp_path / "upload", size=3_000_000)
    await store.put(tmp_path / "upload", sha256=sha256)
    assert await read(store, sha256, start=0, length=1 << 30) == (tmp_path / "upload").read_bytes()
    full = FolderStore(tmp_path / "full", reserve_bytes=1 << 60, writer="me")
    await full.start()
    with pytest.raises(MediaFullError):
        await full.put(tmp_path / "upload", sha256=sha256)
    assert list((tmp_path / "full" / "coming").iterdir()) == []


async def test_leftovers_of_killed_writers_are_cleaned(tmp_path: Path) -> None:
    """Old ones only: a young one may still be written. Its own go at the start."""
    store = FolderStore(tmp_path / "media", reserve_bytes=0, writer="me")
    await store.start()
    left = tmp_path / "media" / "coming" / "left"
    left.touch()
    await store.clean(age_seconds=3600)
    assert left.exists()
    await store.clean(age_seconds=0)
    assert not left.exists()
    others = left.with_name("other-1")
    for path in (left.with_name("me-1"), others):
        path.touch()
    await store.start()
    assert list(left.parent.iterdir()) == [others]


async def test_a_place_that_cannot_be_used_is_one_line_for_the_operator(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folder should be; a bucket that is not there; no server at all."""
    (tmp_path / "file").touch()
    with pytest.raises(MediaSetupError, match="VTAG_MEDIA_URL"):
        await FolderStore(tmp_path / "file", reserve_bytes=0, writer="me").start()
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MediaSetupError, match="s3://nowhere"):
        await BucketStore("s3://nowhere", scratch=tmp_path).start()


async def test_a_server_that_is_away_is_not_a_video_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again can help, so it is another error."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    store = BucketStore("s3://videos", scratch=tmp_path)
    with pytest.raises(MediaUnavailableError):
        async with asyncio.timeout(60):
            await store.size("0" * 64)
