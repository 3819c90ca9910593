"""kill -9 and SIGSTOP of every kind of process, while clients never pause."""

import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import state_folder
from tests.faults.conftest import START_SECONDS, World, workers_of
from tests.faults.load import tag, under_load, until
from tests.running_service import running_service
from tests.service.processes import wait_gone
from tests.service.small_artefact import publish

pytestmark = pytest.mark.timeout(400)

# Of a video whose decoder is killed under it nothing is known but that: it may be what killed it.
DECODER = {(422, "decode_failed")}
HUNG = {(422, "decode_timeout")}
ENCODER = {(503, "encoder_unavailable"), (503, "saturated"), (504, "deadline_exceeded")}


def test_killed_decoders_are_replaced(world: World) -> None:
    """Again and again, all at once: one request each at most fails, none is answered wrongly."""
    count = len(world.workers("decode"))
    with under_load(world.url, world.film, world.expect) as answers:
        killed = 0
        for _ in range(4):
            until(lambda: len(world.workers("decode")) == count)
            for each in world.workers("decode"):
                _send(each, signal.SIGKILL)
                killed += 1
            time.sleep(0.2)
    answers.require(refusals=DECODER)
    assert sum(answers.refused.values()) <= killed
    until(lambda: len(world.workers("decode")) == count)


@pytest.mark.slow
def test_a_stopped_decoder_is_killed_in_time(world: World) -> None:
    """SIGSTOP: its video times out, the others go by the other worker, then there are two again."""
    count = len(world.workers("decode"))
    with under_load(world.url, world.film, world.expect) as answers:
        [first, *_] = world.workers("decode")
        _send(first, signal.SIGSTOP)
        wait_gone(first.pid)
    answers.require(refusals=DECODER | HUNG)
    assert sum(answers.refused.values()) <= 1
    until(lambda: len(world.workers("decode")) == count)


def test_a_killed_encoder_costs_no_request(world: World) -> None:
    """What was in flight is sent once more; while there is none, requests wait."""
    with under_load(world.url, world.film, world.expect) as answers:
        [encoder] = world.workers("encode")
        _send(encoder, signal.SIGKILL)
        until(lambda: [each.pid for each in world.workers("encode")] not in ([], [encoder.pid]))
    answers.require(refusals=ENCODER)
    assert answers.good


def test_a_stopped_encoder_is_killed_in_time(world: World) -> None:
    """SIGSTOP: after VTAG_ENCODER_TIMEOUT_SECONDS another one takes over what it had."""
    with under_load(world.url, world.film, world.expect) as answers:
        [encoder] = world.workers("encode")
        _send(encoder, signal.SIGSTOP)
        until(lambda: [each.pid for each in world.workers("encode")] not in ([], [encoder.pid]))
    answers.require(refusals=ENCODER)


def test_a_stopped_server_goes_on_where_it_was(world: World) -> None:
    """SIGSTOP and SIGCONT, as of a machine that sleeps: clients wait, that is all."""
    with under_load(world.url, world.film, world.expect) as answers:
        for _ in range(3):
            os.kill(world.service.process.pid, signal.SIGSTOP)
            time.sleep(0.7)
            os.kill(world.service.process.pid, signal.SIGCONT)
            time.sleep(0.3)
    answers.require()


@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.slow
def test_both_kinds_killed_until_nobody_believes_in_them(world: World, kind: str) -> None:
    """Killed as they come for three seconds: readiness says so, then all is well by itself."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for each in world.workers(kind):
            _send(each, signal.SIGKILL)
        time.sleep(0.05)
    until(world.ready, seconds=90)
    answer = tag(world.url, world.film)
    assert answer.status_code == 200
    found = {each["label"]: each["score"] for each in answer.json()["tags"]}
    assert found == pytest.approx(world.expect(answer.json()["model"]["space"]), abs=1e-4)


@pytest.mark.parametrize("victim", ["server", "encode", "decode", "all"])
@pytest.mark.slow
def test_whatever_is_killed_nothing_is_left(victim: str, film_path: Path, tmp_path: Path) -> None:
    """No orphan, no shared memory; and no spool file once the service runs again."""
    root = tmp_path / "model_store"
    publish(root)
    memory = _shared_memory()
    settings = {"VTAG_MODEL_STORE": str(root), "VTAG_DECODE_WORKERS": "1"}
    film = film_path.read_bytes()
    with state_folder() as state:
        spool = state / "data" / "spool"
        with running_service(state, environment=settings, start_seconds=START_SECONDS) as service:
            parent = psutil.Process(service.process.pid)
            family = [parent, *parent.children(recursive=True)]
            assert tag(service.url, film).status_code == 200
            victims = {"server": [parent], "all": family}.get(victim)
            for each in workers_of(service, victim) if victims is None else victims:
                _send(each, signal.SIGKILL)
            if victims is None:
                until(lambda: tag(service.url, film).status_code == 200, seconds=120)
                assert list(spool.iterdir()) == []
                parent.send_signal(signal.SIGKILL)
                family = [parent, *parent.children(recursive=True)]
            service.process.wait(30)
            _, alive = psutil.wait_procs(family, timeout=30)
            assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
        assert _shared_memory() <= memory
        (spool / "left").write_bytes(b"of an upload")
        with running_service(state, environment=settings, start_seconds=START_SECONDS) as service:
            assert list(spool.iterdir()) == []
            assert tag(service.url, film).status_code == 200
            labels = httpx.get(f"{service.url}/readyz", timeout=30).json()["components"]
            assert set(labels.values()) == {"ok"}


def _shared_memory() -> set[str]:
    names = (path.name for path in Path("/dev/shm").iterdir())  # noqa: S108 - that is the place
    return {name for name in names if "vtag" in name or name.startswith(("psm_", "sem."))}


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it had ended by itself, as a worker does after some hundred videos
