"""Decoding in children: right pixels, limits that hold, and no harm from one video to others."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service.decode.pool import DecodePool
from service.frames import FrameSlots, map_slot
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.errors import PictureTooLarge, TimeRange, UnsupportedContainer, VideoError
from service.videoclip.manifest import Preprocessing, Sampling
from tests.drawn_video import draw_video

SAMPLING = Sampling(mode="uniform", frames=4)
PREPROCESSING = Preprocessing(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
SHAPE = (1, 4, 32, 32, 3)


@asynccontextmanager
async def running(
    *, workers: int = 1, timeout_seconds: float = 30.0, limits: Limits | None = None
) -> AsyncIterator[tuple[DecodePool, FrameSlots]]:
    """A started pool and its slots, ended afterwards."""
    slots = FrameSlots(4, slot_bytes=1 << 20)
    pool = DecodePool(
        slots, workers=workers, limits=limits or Limits(), timeout_seconds=timeout_seconds
    )
    await pool.start()
    try:
        yield pool, slots
    finally:
        pids = pool.pids
        await pool.stop()
        slots.close()
        assert not any(psutil.pid_exists(pid) for pid in pids)


async def decode(pool: DecodePool, slots: FrameSlots, path: Path) -> npt.NDArray[np.uint8]:
    """The pixels of SAMPLING."""
    async with slots.lease(SHAPE) as slot:
        await pool.decode(path, sampling=SAMPLING, preprocessing=PREPROCESSING, slot=slot)
        return map_slot(slots.descriptor, slot=slot).copy()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never says anything: whoever opens it hangs in the kernel."""
    path = tmp_path / "endless.mp4"
    os.mkfifo(path)
    return path


async def opened(path: Path) -> int:
    """Wait until a worker has opened the named pipe; return our end, which keeps it waiting."""
    async with asyncio.timeout(30):
        while True:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # no reader yet
                await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_a_child_decodes_what_the_library_decodes(video: Path) -> None:
    """Pixels, times, facts and warnings are those of `decode_clips` in this process."""
    expected = decode_clips(video, sampling=SAMPLING, preprocessing=PREPROCESSING, limits=Limits())
    async with running() as (pool, slots), slots.lease(SHAPE) as slot:
        found = await pool.decode(video, sampling=SAMPLING, preprocessing=PREPROCESSING, slot=slot)
        assert np.array_equal(map_slot(slots.descriptor, slot=slot), expected.pixels)
        assert np.array_equal(found.times_seconds, expected.times_seconds)
        assert (found.info, found.warnings) == (expected.info, expected.warnings)
        assert await pool.probe(video) == expected.info


@pytest.mark.anyio
async def test_spans_fill_one_slot_in_one_call(video: Path) -> None:
    """Each span gives a clip; an end at infinity is the end of the video."""
    async with running() as (pool, slots), slots.lease((2, *SHAPE[1:])) as slot:
        found = await pool.decode(
            video,
            sampling=SAMPLING,
            preprocessing=PREPROCESSING,
            slot=slot,
            spans=[(0.0, 1.0), (1.0, float("inf"))],
        )
        assert found.times_seconds.shape == (2, 4)
        assert found.times_seconds[0].max() < 1.0 <= found.times_seconds[1].min()


@pytest.mark.anyio
async def test_errors_of_a_video_keep_their_kind_and_numbers(video: Path, tmp_path: Path) -> None:
    """Class, code, limit and actual value cross the border; the worker lives on."""
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    async with running(limits=Limits(max_pixels=1000)) as (pool, slots):
        pids = pool.pids
        with pytest.raises(PictureTooLarge) as caught:
            await pool.probe(video)
        assert caught.value.limit == 1000
        with pytest.raises(UnsupportedContainer):
            await decode(pool, slots, text)
        assert pool.pids == pids
    async with running() as (pool, slots), slots.lease(SHAPE) as slot:
        with pytest.raises(TimeRange):
            await pool.decode(
                video,
                sampling=SAMPLING,
                preprocessing=PREPROCESSING,
                slot=slot,
                spans=[(100.0, 101.0)],
            )


@pytest.mark.anyio
async def test_a_hanging_video_is_killed_at_its_time_limit(video: Path, endless: Path) -> None:
    """It costs its own answer; the pool is refilled and decodes on."""
    async with running(timeout_seconds=1.0) as (pool, slots):
        pids = pool.pids
        began = time.monotonic()
        with pytest.raises(VideoError) as caught:
            await decode(pool, slots, endless)
        assert caught.value.code == "decode_timeout"
        assert time.monotonic() - began < 20
        assert not psutil.pid_exists(pids[0])
        assert (await decode(pool, slots, video)).max() > 0
        assert pool.pids != pids


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_crash_costs_one_video_only(video: Path, endless: Path, number: int) -> None:
    """The crashed video gets a typed error, the one behind it is decoded by a new worker."""
    async with running() as (pool, slots):
        crashing = asyncio.create_task(decode(pool, slots, endless))
        writer = await opened(endless)
        good = asyncio.create_task(decode(pool, slots, video))
        os.kill(pool.pids[0], number)
        with pytest.raises(VideoError) as caught:
            await crashing
        assert caught.value.code == "decode_failed"
        assert (await good).max() > 0
        assert (pool.alive, pool.replaced) == (1, 1)
        os.close(writer)


@pytest.mark.anyio
async def test_idle_workers_that_die_are_replaced(video: Path) -> None:
    """Killing every idle worker is noticed by the next video, which is decoded."""
    async with running(workers=2) as (pool, slots):
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        assert (await decode(pool, slots, video)).max() > 0


@pytest.mark.anyio
async def test_a_stopped_worker_is_killed(video: Path) -> None:
    """SIGSTOP looks like a hang and ends like one."""
    async with running(timeout_seconds=1.0) as (pool, slots):
        os.kill(pool.pids[0], signal.SIGSTOP)
        with pytest.raises(VideoError) as caught:
            await decode(pool, slots, video)
        assert caught.value.code == "decode_timeout"
        assert (await decode(pool, slots, video)).max() > 0


@pytest.mark.anyio
async def test_a_caller_that_leaves_takes_its_worker_along(endless: Path, video: Path) -> None:
    """When the cancelled call returns, its worker is dead: the slot can be lent again."""
    async with running() as (pool, slots):
        pid = pool.pids[0]
        call = asyncio.create_task(decode(pool, slots, endless))
        writer = await opened(endless)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        os.close(writer)
        assert not psutil.pid_exists(pid)
        assert slots.in_use == 0
        assert (await decode(pool, slots, video)).max() > 0


@pytest.mark.anyio
async def test_more_videos_than_workers_wait_their_turn(video: Path) -> None:
    """All are answered, at most `workers` at a time."""
    async with running(workers=2) as (pool, slots):
        results = await asyncio.gather(*(decode(pool, slots, video) for _ in range(10)))
        assert all(np.array_equal(results[0], other) for other in results)
        assert pool.busy == 0
        assert pool.replaced == 0


@pytest.mark.anyio
async def test_workers_live_in_an_empty_folder_under_limits() -> None:
    """Memory, files and cores are limited, the environment is scrubbed, one socket is open."""
    async with running() as (pool, _):
        process = psutil.Process(pool.pids[0])
        assert list(Path(process.cwd()).iterdir()) == []
        assert resource.prlimit(process.pid, resource.RLIMIT_AS)[0] == 4 * 1024**3
        assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == (0, 0)
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (64, 64)
        assert not [name for name in process.environ() if name.startswith(("VTAG", "HOME", "USER"))]
        folder = process.cwd()
    assert not Path(folder).exists()


@pytest.mark.anyio
async def test_too_little_memory_is_an_error_of_the_video(video: Path) -> None:
    """A decoder that runs into its memory limit fails its video, not the service."""
    slots = FrameSlots(1, slot_bytes=1 << 20)
    pool = DecodePool(
        slots, workers=1, limits=Limits(), timeout_seconds=30, memory_bytes=64 * 1024**2
    )
    await pool.start()
    try:
        with pytest.raises(VideoError) as caught:
            await decode(pool, slots, video)
        assert caught.value.code == "decode_failed"
    finally:
        await pool.stop()
        slots.close()


@pytest.mark.anyio
async def test_a_stopped_pool_refuses_and_forgets(endless: Path) -> None:
    """Running and waiting calls end, no process is left, and later calls are refused."""
    async with running() as (pool, slots):
        calls = [asyncio.create_task(decode(pool, slots, endless)) for _ in range(3)]
        writer = await opened(endless)
        assert (pool.busy, pool.waiting) == (1, 2)
        await pool.stop()
        os.close(writer)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert str(result) == "the decode pool is not running"
        with pytest.raises(RuntimeError, match="not running"):
            await pool.probe(endless)
        assert not pool.ready
        await pool.stop()


@pytest.mark.anyio
async def test_every_real_file_is_answered_or_refused(
    shared_data: Callable[[str], Path],
) -> None:
    """Each file of the collection gives pixels or a typed error, and no worker is lost."""
    files = sorted(path for path in shared_data("videos").iterdir() if path.suffix != ".csv")
    async with running(workers=2) as (pool, slots):
        results = await asyncio.gather(
            *(decode(pool, slots, path) for path in files), return_exceptions=True
        )
        unexpected = [
            (path.name, repr(result))
            for path, result in zip(files, results, strict=True)
            if isinstance(result, BaseException)
            and (not isinstance(result, VideoError) or result.code.startswith("decode_"))
        ]
        assert unexpected == []
        assert pool.replaced == 0
        assert slots.resident_bytes == 0
