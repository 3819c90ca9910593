"""Decoding in children: right pixels, limits that hold, and no harm from one video to others."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service.deadline import DeadlineExceededError
from service.decode import crew as crews
from service.decode import pool as pools
from service.decode.cost import Prediction
from service.decode.pool import DecodePool
from service.frames import FrameSlots, map_slot
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.errors import PictureTooLarge, TimeRange, UnsupportedContainer, VideoError
from service.videoclip.manifest import Preprocessing, Sampling
from tests.drawn_video import draw_video
from tests.service.processes import endless_file, holds

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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that also does something else may take longer to read a header."""
    monkeypatch.setattr(pools, "_HEADER_SECONDS", 25.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Path]:
    """A file that never says anything: whoever reads it hangs in the kernel."""
    with endless_file(tmp_path / "endless.mp4") as path:
        yield path


async def taken(pool: DecodePool, path: Path) -> None:
    """Wait until a worker of `pool` holds `path`, and so has begun with it."""
    async with asyncio.timeout(30):
        while not any(holds(pid, path) for pid in pool.pids):
            await asyncio.sleep(0.01)


async def predicted(pool: DecodePool, path: Path) -> Prediction:
    """What the header of `path` says; one that takes too long to read is asked again."""
    async with asyncio.timeout(60):
        while (found := await pool.predict(path, sampling=SAMPLING)).kind != "h264":
            await asyncio.sleep(0.1)
    return found


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
        with pytest.raises(VideoError) as caught:
            await decode(pool, slots, endless)
        assert caught.value.code == "decode_timeout"
        assert not psutil.pid_exists(pids[0])
        pool._timeout_seconds = 60.0  # a good video may be slow where much else goes on
        assert (await decode(pool, slots, video)).max() > 0
        assert pool.pids != pids


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_crash_costs_one_video_only(video: Path, endless: Path, number: int) -> None:
    """The crashed video gets a typed error, the one behind it is decoded by a new worker."""
    async with running() as (pool, slots):
        crashing = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        good = asyncio.create_task(decode(pool, slots, video))
        os.kill(pool.pids[0], number)
        with pytest.raises(VideoError) as caught:
            await crashing
        assert caught.value.code == "decode_failed"
        assert (await good).max() > 0
        assert (pool.alive, pool.replaced) == (1, 1)
        assert {how: n for how, n in pool.killed.items() if n} == {"signal": 1}
        assert pool.backlog.calls == 2
        assert pool.backlog.wait_seconds > 0
        assert pool.backlog.busy_seconds > 0
        assert (slots.in_use, slots.resident_bytes, pool.window_bytes) == (0, 0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("dies", [False, True])
async def test_a_worker_of_age_works_until_its_successor_is_there(
    video: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """No video waits for one to start, and never do more decode than there are places."""
    async with running() as (pool, slots):
        monkeypatch.setattr(crews, "_TASKS_PER_WORKER", 2)
        [first] = pool.pids
        for _ in range(2):
            await decode(pool, slots, video)
        monkeypatch.setattr(crews, "_TASKS_PER_WORKER", 500)
        assert pool.pids == (first,)  # the other has not had the time to start
        if dies:
            os.kill(first, signal.SIGKILL)
        assert (await decode(pool, slots, video)).max() > 0
        async with asyncio.timeout(60):
            while first in pool.pids or pool.alive != 1 or len(starting(pool)) > 0:
                assert pool.alive <= 1
                await asyncio.sleep(0.02)
        assert (await decode(pool, slots, video)).max() > 0
        assert (pool.alive, pool.replaced) == (1, int(dies))


def starting(pool: DecodePool) -> list[str]:
    """Tasks that start workers."""
    names = (task.get_name() for task in pool._crew._tasks)
    return [name for name in names if name in ("decode-refill", "decode-succeed")]


@pytest.mark.anyio
async def test_idle_workers_that_die_are_replaced(video: Path) -> None:
    """Killing every idle worker is noticed by the next video, which is decoded."""
    async with running(workers=2) as (pool, slots):
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        assert (await decode(pool, slots, video)).max() > 0


@pytest.mark.anyio
async def test_idle_workers_that_die_are_replaced_without_any_video() -> None:
    """A pool whose workers are all gone is not ready, so nobody would send what wakes it."""
    async with running(workers=2) as (pool, _):
        before = pool.pids
        for _ in range(2):
            for pid in pool.pids:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            while pool.alive < len(before) or set(pool.pids) & set(before):
                await asyncio.sleep(0.02)
        assert pool.ready
        assert len(pool.pids) == len(before)


@pytest.mark.anyio
async def test_a_stopped_worker_is_killed(video: Path, endless: Path) -> None:
    """SIGSTOP looks like a hang and ends like one."""
    async with running(timeout_seconds=5.0) as (pool, slots):
        stopping = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        os.kill(pool.pids[0], signal.SIGSTOP)
        with pytest.raises(VideoError) as caught:
            await stopping
        assert caught.value.code == "decode_timeout"
        pool._timeout_seconds = 60.0
        assert (slots.in_use, slots.resident_bytes, pool.window_bytes) == (0, 0, 0)
        assert (await decode(pool, slots, video)).max() > 0


@pytest.mark.anyio
async def test_no_script_reaches_another_file(video: Path) -> None:
    """Playlists that name a good film beside them, by name and by path, under any name."""
    scripts = {
        "concat.mp4": f"ffconcat version 1.0\nfile {video.name}\n",
        "absolute.ffconcat": f"ffconcat version 1.0\nfile {video}\n",
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nfile://{video}\n",
        "picture%d.mp4": "%PDF-1.7",
    }
    async with running() as (pool, slots):
        for name, text in scripts.items():
            path = video.with_name(name)
            path.write_text(text)
            with pytest.raises(UnsupportedContainer):
                await decode(pool, slots, path)
            with pytest.raises(UnsupportedContainer):
                await pool.predict(path, sampling=SAMPLING)
        assert pool.replaced == 0


@pytest.mark.anyio
async def test_predictions_come_from_headers_and_learn(
    video: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hanging header costs its time and gives a guess; decoded videos correct the model."""
    async with running() as (pool, slots):
        prediction = await predicted(pool, video)
        assert prediction.seconds > 0
        assert pool.costs.quantiles() == {}
        async with slots.lease(SHAPE) as slot:
            await pool.decode(
                video,
                sampling=SAMPLING,
                preprocessing=PREPROCESSING,
                slot=slot,
                prediction=prediction,
            )
        assert pool.costs.quantiles()["0.5"] > 0
        monkeypatch.setattr(pools, "_HEADER_SECONDS", 1.0)
        assert (await pool.predict(endless, sampling=SAMPLING)).kind == "size"
        await predicted(pool, video)  # by a new worker for headers
        assert pool.backlog_seconds == 0


@pytest.mark.anyio
async def test_what_can_never_be_accepted_is_refused_before_its_turn(
    endless: Path, tmp_path: Path
) -> None:
    """While all workers are busy, a file that is no video gets its answer at once."""
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    async with running() as (pool, slots):
        busy = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        with pytest.raises(UnsupportedContainer):
            await decode(pool, slots, text)
        assert not busy.done()
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


@pytest.mark.anyio
async def test_what_would_surely_come_too_late_does_not_wait(
    video: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header says that decoding alone takes longer than its client waits; others do wait."""
    async with running() as (pool, slots), slots.lease(SHAPE) as slot:
        busy = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        monkeypatch.setattr(pool.costs, "predict", lambda *_, **__: Prediction(3e3, 3e3, "h264"))
        ask: dict[str, Any] = {"sampling": SAMPLING, "preprocessing": PREPROCESSING, "slot": slot}
        with pytest.raises(DeadlineExceededError, match="about 3000 s"):
            await pool.decode(video, **ask, deadline=time.monotonic() + 60)
        waiting = asyncio.create_task(pool.decode(video, **ask, deadline=time.monotonic() + 3e3))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert not busy.done()
        for task in (waiting, busy):
            task.cancel()
        await asyncio.gather(waiting, busy, return_exceptions=True)


@pytest.mark.anyio
async def test_a_header_that_hangs_holds_nobody_up(
    video: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While what predicts is stopped, a video that waits is decoded as soon as its turn comes."""
    monkeypatch.setattr(pools, "_HEADER_SECONDS", 60.0)
    async with running() as (pool, slots):
        busy = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        [header] = pool._header_crew.workers
        os.kill(header.child.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(decode(pool, slots, video))
        while not pool.waiting:
            await asyncio.sleep(0.01)
        os.kill(pool.pids[0], signal.SIGKILL)
        async with asyncio.timeout(50):
            assert (await waiting).max() > 0
        assert isinstance((await asyncio.gather(busy, return_exceptions=True))[0], VideoError)


@pytest.mark.anyio
async def test_a_worker_that_hangs_is_ended_soon_after_its_caller_left(
    endless: Path, video: Path
) -> None:
    """Nobody waits for its time limit; the slot can be lent again at once."""
    async with running() as (pool, slots):
        pid = pool.pids[0]
        call = asyncio.create_task(decode(pool, slots, endless))
        await taken(pool, endless)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert slots.in_use == 0
        assert (await decode(pool, slots, video)).max() > 0
        assert not psutil.pid_exists(pid)
        assert pool.replaced == 1
        assert pool.killed["left"] == 1


@pytest.mark.anyio
async def test_callers_that_leave_cost_no_workers(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker finishes what was begun, and then decodes for others: nothing of it is left."""
    monkeypatch.setattr(crews, "_FINISH_SECONDS", 60.0)  # on however slow a machine
    long = draw_video(tmp_path / "long.mp4", seconds=20.0, width=640, height=480)
    async with running() as (pool, slots):
        expected = await decode(pool, slots, video)
        pids = pool.pids
        for _ in range(5):
            call = asyncio.create_task(decode(pool, slots, long))
            while not pool.busy and not call.done():
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert slots.in_use == 0
        assert np.array_equal(await decode(pool, slots, video), expected)
        assert (pool.pids, pool.replaced) == (pids, 0)


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
        await taken(pool, endless)
        assert (pool.busy, pool.waiting) == (1, 2)
        assert pool.backlog_seconds > 0
        await pool.stop()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert str(result) == "the decode pool is not running"
        with pytest.raises(RuntimeError, match="not running"):
            await pool.probe(endless)
        assert not pool.ready
        await pool.stop()


@pytest.mark.anyio
@pytest.mark.timeout(400)
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
        assert (slots.resident_bytes, pool.window_bytes) == (0, 0)
