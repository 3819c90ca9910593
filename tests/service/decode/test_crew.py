"""A crew of decode children: a pulse while they are idle, and a word when none gets on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.decode import crew as crews
from service.decode.crew import Crew
from service.decode.member import WorkerSetup
from service.videoclip.decoding import Limits

pytestmark = pytest.mark.anyio

_GiB = 1024**3


@asynccontextmanager
async def _running(count: int) -> AsyncIterator[Crew]:
    crew = Crew(WorkerSetup(Limits(), 4 * _GiB, 1 << 20, "auto"), count=count)
    await crew.start()
    try:
        yield crew
    finally:
        await crew.stop()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.02)


async def test_an_idle_worker_that_hangs_is_replaced_before_a_video_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGSTOP of one: it is asked, does not answer, and another one takes its place."""
    monkeypatch.setattr(crews, "_PULSE_SECONDS", 0.1)
    monkeypatch.setattr(crews, "_PULSE_LIMIT_SECONDS", 1.0)
    async with _running(2) as crew:
        first, second = (worker.child.pid for worker in crew.workers)
        os.kill(first, signal.SIGSTOP)
        await _until(lambda: first not in {worker.child.pid for worker in crew.workers})
        await _until(lambda: len(crew.workers) == 2)
        assert second in {worker.child.pid for worker in crew.workers}
        taken = await crew.take()
        answer, _ = await taken.child.call({"op": "pulse"})
        assert "failure" not in answer
        await crew.give_back(taken)


async def test_a_crew_of_which_nobody_answers_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one gets on it is not; when they go on, it is none any more."""
    monkeypatch.setattr(crews, "_PULSE_SECONDS", 0.1)
    monkeypatch.setattr(crews, "_PULSE_LATE_SECONDS", 0.2)
    monkeypatch.setattr(crews, "_PULSE_LIMIT_SECONDS", 600.0)
    async with _running(2) as crew:
        first, second = crew.workers
        os.kill(first.child.pid, signal.SIGSTOP)
        await _until(lambda: first.late_at is not None)
        os.kill(second.child.pid, signal.SIGSTOP)
        await _until(lambda: crew.stuck)
        assert crew.running
        for worker in (first, second):
            os.kill(worker.child.pid, signal.SIGCONT)
        await _until(lambda: not crew.stuck and crew.idle)
        assert crew.replaced == 0


async def test_a_video_that_takes_much_longer_than_predicted_is_no_progress() -> None:
    """Readiness asks how long it may take, not how long it takes."""
    async with _running(1) as crew:
        worker = await crew.take()
        worker.expect(1000.0, limit_seconds=60.0)
        assert not crew.stuck
        worker.late_at = 0.0
        assert crew.stuck
        await crew.give_back(worker)
        assert not crew.stuck
