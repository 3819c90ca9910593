"""Each picture is made once, the least recently used go first, a deleted video's all go."""

import asyncio
from pathlib import Path

import pytest

from service.media.picture_cache import PictureCache

pytestmark = pytest.mark.anyio

VIDEO, OTHER = "a" * 64, "b" * 64


class Maker:
    """Makes pictures when it is let, and counts them."""

    def __init__(self, data: bytes = b"picture") -> None:
        self.data = data
        self.count = 0
        self.ended = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        """Make one."""
        self.count += 1
        try:
            await self.gate.wait()
            return self.data
        finally:
            self.ended += 1


async def start(folder: Path, *, max_bytes: int = 1 << 20) -> PictureCache:
    """Open a cache."""
    cache = PictureCache(folder, max_bytes=max_bytes)
    await cache.start()
    return cache


async def test_a_picture_is_made_once_also_over_a_restart(tmp_path: Path) -> None:
    """The second who asks, and the next run, read it from the disk."""
    make = Maker()
    for _ in range(2):
        cache = await start(tmp_path)
        for _ in range(2):
            assert await cache.get(VIDEO, "t=1", make) == b"picture"
        assert cache.has(VIDEO, "t=1")
        assert not cache.has(VIDEO, "t=2")
        assert cache.total_bytes == 7
    assert make.count == 1


async def test_of_many_at_once_one_makes_it(tmp_path: Path) -> None:
    """It goes on while somebody waits, and ends with the last who leaves."""
    cache, make = await start(tmp_path), Maker()
    make.gate.clear()
    waiting = [asyncio.create_task(cache.get(VIDEO, "x", make)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    make.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [b"picture"] * 4
    assert make.count == 1
    make.gate.clear()
    alone = asyncio.create_task(cache.get(VIDEO, "y", make))
    while make.count < 2:
        await asyncio.sleep(0)
    alone.cancel()
    await asyncio.wait({alone})
    assert make.ended == 2
    make.gate.set()
    assert await cache.get(VIDEO, "y", make) == b"picture"


async def test_a_failure_is_told_to_all_and_not_kept(tmp_path: Path) -> None:
    """Who asks later gets another try."""
    cache = await start(tmp_path)

    async def fail() -> bytes:
        await asyncio.sleep(0)
        raise LookupError

    found = await asyncio.gather(
        *(cache.get(VIDEO, "x", fail) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in found] == [LookupError] * 3
    assert await cache.get(VIDEO, "x", Maker()) == b"picture"


async def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """The sum stays within the bound, on the disk too."""
    cache = await start(tmp_path, max_bytes=30)
    for name in ("1", "2", "3"):
        await cache.get(VIDEO, name, Maker(bytes(10)))
    await cache.get(VIDEO, "1", Maker())
    await cache.get(VIDEO, "4", Maker(bytes(10)))
    assert [cache.has(VIDEO, name) for name in "1234"] == [True, False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == cache.total_bytes == 30


async def test_pictures_go_with_their_video(tmp_path: Path) -> None:
    """Those that are there and one that is being made; those of others stay."""
    cache, make = await start(tmp_path), Maker()
    await cache.get(VIDEO, "1", make)
    await cache.get(OTHER, "1", make)
    make.gate.clear()
    late = asyncio.create_task(cache.get(VIDEO, "2", make))
    while make.count < 3:
        await asyncio.sleep(0)
    await cache.forget(VIDEO)
    make.gate.set()
    assert await late == b"picture"
    assert [path.name[:1] for path in tmp_path.iterdir()] == ["b"]


async def test_what_is_lost_from_the_disk_is_made_again(tmp_path: Path) -> None:
    """It is a cache: nothing depends on it."""
    cache, make = await start(tmp_path), Maker()
    await cache.get(VIDEO, "1", make)
    for path in tmp_path.iterdir():
        path.unlink()
    assert await cache.get(VIDEO, "1", make) == b"picture"
    assert (make.count, cache.total_bytes) == (2, 7)
