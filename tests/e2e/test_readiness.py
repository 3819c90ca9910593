"""Readiness is progress: a process that is there and does not get on serves nobody."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import state_folder
from tests.faults.conftest import workers_of
from tests.faults.load import until
from tests.running_service import RunningService, running_service


@pytest.fixture(scope="module")
def running(small_store: Path) -> Iterator[RunningService]:
    """A service that gives a hanging encoder all the time in the world."""
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_DECODE_WORKERS": "1",
        "VTAG_ENCODER_TIMEOUT_SECONDS": "600",
    }
    with state_folder() as folder, running_service(folder, environment=settings) as found:
        yield found


def _readiness(running: RunningService) -> httpx.Response:
    return httpx.get(f"{running.url}/readyz", timeout=60)


@pytest.mark.timeout(400)
def test_a_stopped_encoder_takes_readiness_without_any_request(running: RunningService) -> None:
    """SIGSTOP of an idle encoder: 503 that names it, alive all the time; SIGCONT: ready again."""
    [encoder] = workers_of(running, "encode")
    assert _readiness(running).status_code == 200
    encoder.send_signal(signal.SIGSTOP)
    try:
        until(lambda: _readiness(running).status_code == 503, seconds=90)
        refused = _readiness(running)
        assert refused.json()["components"]["encoder"] == "stuck"
        assert refused.headers["retry-after"]
        assert encoder.status() == psutil.STATUS_STOPPED
        assert httpx.get(f"{running.url}/healthz", timeout=60).status_code == 200
        assert httpx.get(f"{running.url}/startupz", timeout=60).status_code == 200
    finally:
        encoder.send_signal(signal.SIGCONT)
    until(lambda: _readiness(running).status_code == 200, seconds=90)
    assert [each.pid for each in workers_of(running, "encode")] == [encoder.pid]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_stopped_decoder_costs_no_video(
    running: RunningService, film: Callable[..., bytes]
) -> None:
    """SIGSTOP of idle decoders: they are found and replaced before a video is lost to them."""
    until(lambda: len(workers_of(running, "decode")) == 2, seconds=90)  # one reads headers
    stopped = {each.pid for each in workers_of(running, "decode")}
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: not stopped & {each.pid for each in workers_of(running, "decode")}, seconds=90)
    until(lambda: _readiness(running).status_code == 200, seconds=90)
    answer = httpx.post(
        f"{running.url}/classify", files={"video": film()}, data={"labels": "a"}, timeout=90
    )
    assert answer.status_code == 200, answer.text
