"""kill -9 of everything, again and again while videos are indexed: nothing half, nothing twice."""

import os
import random
import secrets
import threading
import time
from pathlib import Path

import psutil
import pytest

from service.index import postmaster_guard
from tests.e2e.conftest import state_folder
from tests.faults.load import until
from tests.faults.uploads import Ledger, draw_film, require_whole
from tests.running_service import RunningService, running_service
from tests.service.processes import kill_all, shared_memory
from tests.service.small_artefact import publish

_KILLS = int(os.environ.get("VTAG_TEST_KILLS", "50"))
_AT_ONCE = 4
_SEGMENT_SECONDS = 0.2


def _family(service: RunningService) -> list[psutil.Process]:
    """The service with all its children, Postgres' too."""
    parent = psutil.Process(service.process.pid)
    return [parent, *parent.children(recursive=True)]


def _files(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def _require_tidy(state: Path, ledger: Ledger) -> None:
    """No upload, nothing on its way, no bytes without a video."""
    data = state / "data"
    assert _files(data / "spool") == set()
    assert _files(data / "media" / "coming") == set()
    until(lambda: _files(data / "media") - {"owner"} == set(ledger.sent))


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * _KILLS)
def test_what_was_acknowledged_survives_any_number_of_deaths(tmp_path: Path) -> None:
    """VTAG_TEST_KILLS times (50) on one folder of state: all of it is there, complete, once."""
    seed = int(os.environ.get("VTAG_TEST_SEED", secrets.randbelow(1 << 32)))
    print(f"VTAG_TEST_SEED={seed} VTAG_TEST_KILLS={_KILLS}")  # noqa: T201 - shown with a failure
    draw = random.Random(seed)
    root = tmp_path / "store"
    publish(root)
    settings = {
        "VTAG_MODEL_STORE": str(root),
        "VTAG_DECODE_WORKERS": "2",
        "VTAG_ENCODER_THREADS": "1",
        "VTAG_SEGMENT_SECONDS": str(_SEGMENT_SECONDS),
        "VTAG_LOG_LEVEL": "warning",
    }
    ledger = Ledger()
    memory: set[Path] = set()
    usual_seconds, cut, lost = 0.0, 0, 0
    with state_folder() as state:
        for number in range(_KILLS):
            films = [
                draw_film(tmp_path, number * _AT_ONCE + each, segment_seconds=_SEGMENT_SECONDS)
                for each in range(_AT_ONCE)
            ]
            with running_service(state, environment=settings) as service:
                require_whole(service.url, ledger, deeply=False)
                known = len(ledger.acknowledged)
                again = ledger.pending
                clients = threading.Thread(
                    target=ledger.send_all, args=([*again, *films], service.url)
                )
                began = time.monotonic()
                clients.start()
                if usual_seconds == 0:  # the first round shows how long it takes
                    clients.join()
                    usual_seconds = time.monotonic() - began
                else:
                    clients.join(draw.uniform(0, usual_seconds))
                    if clients.is_alive():
                        cut += 1
                    else:  # it is quicker than was thought: kill sooner
                        usual_seconds = (usual_seconds + time.monotonic() - began) / 2
                family = _family(service)
                memory |= shared_memory(family)
                kill_all(family)
                service.process.wait()
                clients.join()
                lost += len(again) + len(films) - (len(ledger.acknowledged) - known)
        print(f"{cut} of {_KILLS} kills cut uploads off, {lost} answers were lost")  # noqa: T201
        with running_service(state, environment=settings) as service:
            require_whole(service.url, ledger, deeply=True)
            ledger.settle(service.url)
            require_whole(service.url, ledger, deeply=True)
            assert set(ledger.acknowledged) == set(ledger.sent)
            _require_tidy(state, ledger)
        assert list(postmaster_guard.running_in(state / "data" / "postgres")) == []
    assert memory
    assert [path for path in memory if path.exists()] == []
    assert cut > 0 or _KILLS < 5
