"""Bytes live exactly as long as a video has them, whatever is cut off between row and file."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ApiError
from service.index.postgres import PostgresIndex
from service.index.video_index import NewSegment, NewVideo, Space
from service.media import library as library_module
from service.media.library import MediaLibrary
from service.media.picture_cache import PictureCache
from service.media.store import MediaStore
from tests.service.media.test_stores import write

pytestmark = pytest.mark.anyio

SPACE = Space("small", "0" * 12, 0.5, 2)
BYTES = 1000


class Shelf:
    """An index, a library, and what the two do together when a video is sent or deleted."""

    def __init__(self, index: PostgresIndex, library: MediaLibrary, folder: Path) -> None:
        self.index = index
        self.library = library
        self._folder = folder

    async def add(self, *, size: int = BYTES) -> tuple[str, str]:
        """Send a video of random bytes; return its id and digest."""
        path = self._folder / "upload"
        sha256 = write(path, size=size)
        async with self.library.keeping(path, sha256=sha256, size_bytes=size):
            return await self.add_row(sha256, size=size), sha256

    async def add_row(self, sha256: str, *, size: int = BYTES) -> str:
        """Add the video to the index alone."""
        video = NewVideo(sha256, size, None, None, 1.0, 1.0, 8, 8, "h264")
        vector = np.array([1, 0], np.float32)
        stored, _ = await self.index.add(video, space=SPACE, segments=[NewSegment(0, 1, vector)])
        return stored.id

    async def files(self, store: MediaStore) -> set[str]:
        """What lies in the store."""
        return {file.sha256 async for page in store.files() for file in page}


@asynccontextmanager
async def open_shelf(
    dsn: str,
    store: MediaStore,
    folder: Path,
    *,
    max_bytes: int = 1 << 30,
    hold: float = 60.0,
    holder: str = "me",
) -> AsyncIterator[Shelf]:
    """Start an index and a library over it."""
    index = PostgresIndex(dsn)
    await index.start()
    library = MediaLibrary(
        store,
        pictures=PictureCache(folder / "pictures", max_bytes=1 << 20),
        database=index.database,
        holder=holder,
        max_bytes=max_bytes,
        hold_seconds=hold,
    )
    try:
        await library.start()
        yield Shelf(index, library, folder)
    finally:
        await library.stop()
        await index.close()


async def test_bytes_are_kept_with_the_video_and_go_with_it(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """Kept once however often they are sent; deleted, counted down and unknown afterwards."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        video_id, sha256 = await shelf.add()
        async with shelf.library.keeping(tmp_path / "upload", sha256=sha256, size_bytes=BYTES):
            pass
        kept = await shelf.library.find(sha256)
        assert kept is not None
        assert kept.size_bytes == await shelf.library.total_bytes() == BYTES
        assert await shelf.library.kept_videos([video_id, "vid_x"]) == {video_id}
        data = b"".join([c async for c in shelf.library.read(kept, start=0, length=BYTES)])
        assert hashlib.sha256(data).hexdigest() == sha256
        await shelf.index.delete(video_id, version=None)
        await shelf.library.forget(sha256)
        assert await shelf.files(store) == set()
        assert await shelf.library.find(sha256) is None
        assert await shelf.library.total_bytes() == 0


async def test_without_a_video_nothing_is_kept(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """A request that fails, or is cancelled, after its bytes were kept takes them along."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        sha256 = write(tmp_path / "upload", size=BYTES)

        async def fail() -> None:
            async with shelf.library.keeping(tmp_path / "upload", sha256=sha256, size_bytes=BYTES):
                assert await shelf.files(store) == {sha256}
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert await shelf.files(store) == set()
        assert await shelf.library.total_bytes() == 0


async def test_what_a_crash_left_is_swept(
    postgres: str,
    make_store: Callable[[], MediaStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row whose video is gone, a hold of a dead process, a file without a row: all go."""
    store = make_store()
    async with open_shelf(postgres, store, tmp_path, hold=0.001) as shelf:
        deleted, _ = await shelf.add()
        kept, sha256 = await shelf.add()
        await shelf.index.delete(deleted, version=None)  # and died before `forget`
        held = write(tmp_path / "upload", size=BYTES)
        entered = shelf.library.keeping(tmp_path / "upload", sha256=held, size_bytes=BYTES)
        await entered.__aenter__()  # and died
        unknown = write(tmp_path / "upload", size=BYTES)
        await store.put(tmp_path / "upload", sha256=unknown)
        await asyncio.sleep(0.01)
        await shelf.library.sweep(listing=True)
        assert await shelf.files(store) == {sha256, unknown}  # it may be on its way
        monkeypatch.setattr(library_module, "LEFTOVER_SECONDS", 0.0)
        await shelf.library.sweep(listing=True)
        assert await shelf.files(store) == {sha256}
        assert await shelf.library.kept_videos([kept]) == {kept}
        assert await shelf.library.total_bytes() == BYTES


async def test_what_a_killed_run_held_goes_at_its_next_start(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """At once, however long the hold would last; what another service holds stays."""
    async with open_shelf(postgres, store, tmp_path, holder="other") as other:
        others = write(tmp_path / "upload", size=BYTES)
        async with other.library.keeping(tmp_path / "upload", sha256=others, size_bytes=BYTES):
            async with open_shelf(postgres, store, tmp_path) as shelf:
                held = write(tmp_path / "upload", size=BYTES)
                entered = shelf.library.keeping(tmp_path / "upload", sha256=held, size_bytes=BYTES)
                await entered.__aenter__()  # and died
            async with open_shelf(postgres, store, tmp_path) as shelf, asyncio.timeout(60):
                while await shelf.files(store) != {others}:
                    await asyncio.sleep(0.05)


async def test_videos_that_are_deleted_many_at_once_are_swept_soon(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """Without a word for each of them, and long before the next sweep is due."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        for _ in range(3):
            video_id, _ = await shelf.add()
            await shelf.index.delete(video_id, version=None)
        shelf.library.sweep_soon()
        async with asyncio.timeout(60):
            while await shelf.files(store):
                await asyncio.sleep(0.05)


async def test_a_place_of_another_database_is_not_swept(
    postgres: str, store: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong setting must not cost anybody their videos."""
    monkeypatch.setattr(library_module, "LEFTOVER_SECONDS", 0.0)
    await store.start()
    await store.claim("another database")
    sha256 = write(tmp_path / "upload", size=BYTES)
    await store.put(tmp_path / "upload", sha256=sha256)
    async with open_shelf(postgres, store, tmp_path) as shelf:
        await shelf.library.sweep(listing=True)
        assert await shelf.files(store) == {sha256}


async def test_a_video_sent_while_it_is_deleted_keeps_its_bytes(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """Whoever is about to add a video holds its bytes against everybody who deletes it."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        video_id, sha256 = await shelf.add()
        async with shelf.library.keeping(tmp_path / "upload", sha256=sha256, size_bytes=BYTES):
            await shelf.index.delete(video_id, version=None)
            await shelf.library.forget(sha256)
            await shelf.library.sweep(listing=True)
            assert await shelf.files(store) == {sha256}
            await shelf.add_row(sha256)
        assert await shelf.files(store) == {sha256}


async def test_many_at_once_end_in_what_the_index_says(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """Senders and deleters of the same bytes in any order: kept if and only if there is a video."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        sha256 = write(tmp_path / "upload", size=BYTES)

        async def send() -> None:
            async with shelf.library.keeping(tmp_path / "upload", sha256=sha256, size_bytes=BYTES):
                await shelf.add_row(sha256)

        async def remove() -> None:
            found = await shelf.index.find(sha256)
            if found is not None:
                await shelf.index.delete(found.id, version=None)
                await shelf.library.forget(sha256)

        for _ in range(5):
            await asyncio.gather(*(work() for _ in range(3) for work in (send, remove)))
            there = await shelf.index.find(sha256) is not None
            assert await shelf.files(store) == ({sha256} if there else set())
            assert await shelf.library.total_bytes() == (BYTES if there else 0)


async def test_all_bytes_together_are_bounded(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """One too many is 507 and leaves nothing; what is deleted makes room."""
    async with open_shelf(postgres, store, tmp_path, max_bytes=2 * BYTES) as shelf:
        first, sha256 = await shelf.add()
        await shelf.add()
        with pytest.raises(ApiError) as refused:
            await shelf.add()
        assert (refused.value.code, refused.value.status) == ("media_full", 507)
        assert refused.value.limit == 2 * BYTES
        assert len(await shelf.files(store)) == 2
        await shelf.index.delete(first, version=None)
        await shelf.library.forget(sha256)
        await shelf.add()


async def test_bytes_that_were_lost_are_replaced_by_the_next_who_sends_them(
    postgres: str, store: MediaStore, tmp_path: Path
) -> None:
    """The row says kept, the store has nothing: reading is 404, sending again repairs it."""
    async with open_shelf(postgres, store, tmp_path) as shelf:
        _, sha256 = await shelf.add()
        await store.delete(sha256)
        kept: Any = await shelf.library.find(sha256)
        with pytest.raises(ApiError) as missing:
            await anext(aiter(shelf.library.read(kept, start=0, length=1)))
        assert (missing.value.code, missing.value.status) == ("media_not_kept", 404)
        async with shelf.library.keeping(tmp_path / "upload", sha256=sha256, size_bytes=BYTES):
            pass
        assert await store.size(sha256) == BYTES
