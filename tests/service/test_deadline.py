"""Where a request is when its client leaves."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.deadline import Stage, reached, stage_var
from tests.drawn_video import draw_video
from tests.service.engine import LABELS, Engine, running
from tests.service.processes import endless_file, holds

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """A tagger with all its parts."""
    async with running(tmp_path / "store") as found:
        yield found


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


def _begin(engine: Engine, path: Path) -> tuple[asyncio.Task[object], Stage]:
    """A request that works, and where it says that it is."""
    stage = Stage()
    token = stage_var.set(stage)
    try:
        return asyncio.create_task(_work(engine, path)), stage
    finally:
        stage_var.reset(token)


async def _work(engine: Engine, path: Path) -> object:
    reached("wait")
    return await engine.tagger.classify(path, labels=LABELS)


async def _leave(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_before_its_video_is_decoded(engine: Engine, video: Path) -> None:
    """All slots are lent: it waits for one."""
    async with AsyncExitStack() as stack:
        for _ in range(engine.slots.count):
            await stack.enter_async_context(engine.slots.lease((1,)))
        task, stage = _begin(engine, video)
        await _until(lambda: engine.slots.waiting == 1)
        await _leave(task)
        assert stage.name == "wait"


async def test_while_its_video_is_decoded(engine: Engine, tmp_path: Path) -> None:
    """A child holds the file."""
    with endless_file(tmp_path / "endless.mp4") as endless:
        task, stage = _begin(engine, endless)
        await _until(lambda: any(holds(pid, endless) for pid in engine.decoder.pids))
        await _leave(task)
        assert stage.name == "decode"


async def test_before_a_batch_and_in_one(engine: Engine, video: Path) -> None:
    """The encoder hangs: the clips of the first request are in it, those of the second wait."""
    await engine.tagger.classify(video, labels=LABELS)  # texts are known from here on
    await engine.encoder.stations[0].stop()  # or it is the one that waits for the answer
    pid = engine.encoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    first, in_batch = _begin(engine, video)
    await _until(lambda: engine.encoder.stations[0].busy)
    second, before = _begin(engine, video)
    await _until(lambda: engine.encoder.batcher.waiting_rows("clips") == 1)
    await _leave(first)
    await _leave(second)
    assert (in_batch.name, before.name) == ("encode", "batch")
    os.kill(pid, signal.SIGCONT)
    assert (await engine.tagger.classify(video, labels=LABELS)).tags


async def test_after_that_it_is_being_answered(engine: Engine, video: Path) -> None:
    """Whoever leaves now leaves while it is scored or sent."""
    task, stage = _begin(engine, video)
    await task
    assert stage.name == "answer"


def test_work_for_no_request_has_no_stage() -> None:
    """Jobs and start-up go the same path."""
    reached("decode")
    assert stage_var.get(None) is None
