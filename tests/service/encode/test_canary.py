"""An encoder that nobody asks anything: still known to be well, or not."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from service.encode import canary
from tests.service.encode.faulty_worker import FAULTS, tell
from tests.service.encode.started import IDS, running

pytestmark = pytest.mark.anyio


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.02)


async def test_an_idle_worker_that_hangs_is_not_ready(tmp_path: Path) -> None:
    """SIGSTOP with no request in flight: `stuck`, with its process alive; SIGCONT: ready again."""
    async with running(tmp_path, call_timeout_seconds=600) as (encoder, _):
        pid = encoder.pid
        assert pid is not None
        assert encoder.state == "ok"
        os.kill(pid, signal.SIGSTOP)
        await _until(lambda: not encoder.ready)
        assert (encoder.state, encoder.alive) == ("stuck", True)
        os.kill(pid, signal.SIGCONT)
        await _until(lambda: encoder.ready)
        assert (encoder.pid, encoder.restarts) == (pid, 0)


async def test_an_idle_worker_that_hangs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of a call, although there was none: the next request finds a new worker."""
    monkeypatch.setattr(canary, "_SILENCE_SECONDS", 0.1)
    async with running(tmp_path, call_timeout_seconds=1) as (encoder, _):
        pid = encoder.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await _until(lambda: encoder.restarts == 1 and encoder.ready)
        assert encoder.pid != pid
        assert len((await encoder.encode_texts(IDS)).vectors) == len(IDS)


async def test_a_worker_that_computes_something_else_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that went bad shows in the known text, before a client sees it."""
    monkeypatch.setattr(canary, "_SILENCE_SECONDS", 0.1)
    faults = tmp_path / "faults"
    monkeypatch.setenv(FAULTS, str(faults))
    module = "tests.service.encode.faulty_worker"
    async with running(tmp_path / "store", module=module) as (encoder, _):
        tell(faults, "wrong")
        await _until(lambda: encoder.restarts == 1 and encoder.ready)
        assert not faults.exists()
        assert len((await encoder.encode_texts(IDS)).vectors) == len(IDS)


async def test_batches_are_proof_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While requests are answered nothing is asked beside them."""
    monkeypatch.setattr(canary, "_SILENCE_SECONDS", 0.5)
    async with running(tmp_path) as (encoder, _):
        [station] = encoder.stations
        station.worker.answered_at = float("inf")  # as if answers never stopped coming
        asked = asyncio.Event()
        ask = station._canary._ask

        async def noted() -> None:
            asked.set()
            await ask()

        monkeypatch.setattr(station._canary, "_ask", noted)
        await asyncio.sleep(2)
        assert not asked.is_set()
        station.worker.answered_at = 0.0
        async with asyncio.timeout(60):
            await asked.wait()
