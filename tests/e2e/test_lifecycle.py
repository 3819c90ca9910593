"""Start, stop and sudden death of the real service: nothing is lost, nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from service.index import postmaster_guard
from tests.conftest import REPOSITORY
from tests.running_service import RunningService, running_service
from tests.service.processes import kill_all, shared_memory

Film = Callable[..., bytes]


def _family(service: RunningService) -> list[psutil.Process]:
    """The service with all its children, Postgres' too."""
    parent = psutil.Process(service.process.pid)
    return [parent, *parent.children(recursive=True)]


def _settings(store: Path, **more: str) -> dict[str, str]:
    return {"VTAG_MODEL_STORE": str(store), **more}


def _nothing_left(processes: list[psutil.Process], state: Path) -> None:
    gone, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    assert len(gone) == len(processes)
    assert list(postmaster_guard.running_in(state / "data" / "postgres")) == []
    assert list((state / "data" / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_group_leaves_nothing_behind(
    small_store: Path, state: Path, film: Film, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal, with an upload half way: exit 0, no process, no memory, no file."""
    with running_service(state, environment=_settings(small_store)) as service:
        assert (
            httpx.post(f"{service.url}/videos", files={"video": film()}, timeout=60).status_code
            == 201
        )
        with _half_an_upload(service.url):
            _wait(lambda: any((state / "data" / "spool").iterdir()))
            processes = _family(service)
            assert len(processes) > 4
            memory = shared_memory(processes)
            assert memory  # Postgres has some
            os.killpg(service.process.pid, number)
        assert service.process.wait(120) == 0
    _nothing_left(processes, state)
    assert [path for path in memory if path.exists()] == []
    assert "Traceback" not in service.log.read_text()


class _half_an_upload:  # noqa: N801 - it is used as a statement
    """A client that sends the start of a form and then nothing."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))

    def __enter__(self) -> "_half_an_upload":
        self._socket.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="video"; filename="f"\r\n\r\nabc'
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _wait(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_index_survives_the_death_of_everything(
    small_store: Path, state: Path, film: Film
) -> None:
    """kill -9 of every process at once; the next start has each acknowledged video, complete."""
    environment = _settings(small_store, VTAG_SEGMENT_SECONDS="0.5")
    with running_service(state, environment=environment) as service:
        acknowledged: list[dict[str, object]] = []
        stop = threading.Event()
        thread = threading.Thread(target=_upload, args=(service.url, film, acknowledged, stop))
        thread.start()
        _wait(lambda: len(acknowledged) >= 3)
        kill_all(_family(service))
        stop.set()
        thread.join()
        service.process.wait()
    (state / "data" / "spool" / "left").write_bytes(b"of an upload")
    with running_service(state, environment=environment) as service:
        stored = httpx.get(f"{service.url}/videos", params={"limit": 200}, timeout=60).json()[
            "data"
        ]
        found = {video["id"]: video for video in stored}
        for video in acknowledged:
            assert found[video["id"]] == video
        # One more may have been written whose answer was never sent; it is whole as well.
        assert len(found) - len(acknowledged) in (0, 1)
        assert all(video["segments"] >= 2 for video in stored)
        hits = httpx.post(
            f"{service.url}/search", json={"query": "a", "top_k": 100}, timeout=60
        ).json()
        assert {hit["video_id"] for hit in hits["data"]} == set(found)
        assert list((state / "data" / "spool").iterdir()) == []


@pytest.mark.slow
def test_the_chosen_lambda_survives_the_death_of_everything(
    small_store: Path, state: Path, film: Film
) -> None:
    """After kill -9 the service starts at the lambda of PUT, and a plain search finds the video."""
    environment = _settings(small_store)
    with running_service(state, environment=environment) as service:
        default = httpx.get(f"{service.url}/lambda", timeout=60).json()["default"]
        chosen = 0.75 if default != 0.75 else 0.25
        assert (
            httpx.put(f"{service.url}/lambda", json={"lambda": chosen}, timeout=60).status_code
            == 200
        )
        assert (
            httpx.post(f"{service.url}/videos", files={"video": film()}, timeout=60).status_code
            == 201
        )
        kill_all(_family(service))
        service.process.wait()
    with running_service(state, environment=environment) as service:
        assert httpx.get(f"{service.url}/lambda", timeout=60).json()["lambda"] == chosen
        found = httpx.post(f"{service.url}/search", json={"query": "a"}, timeout=60)
        assert (found.status_code, len(found.json()["data"])) == (200, 1)


def _upload(
    url: str, film: Film, acknowledged: list[dict[str, object]], stop: threading.Event
) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        try:
            answer = httpx.post(
                f"{url}/videos", files={"video": film(seconds=1 + number / 15)}, timeout=60
            )
        except httpx.TransportError:
            return
        assert answer.status_code == 201, answer.text
        acknowledged.append({**answer.json(), "warnings": []})  # told once, when it is indexed


def test_kill_9_of_the_service_alone_takes_its_children_along(
    small_store: Path, state: Path
) -> None:
    """Decoders, encoder and Postgres end by themselves when their service is gone."""
    with running_service(state, environment=_settings(small_store)) as service:
        processes = _family(service)
        service.process.kill()
        _nothing_left(processes, state)


@pytest.mark.slow
def test_two_services_do_not_share_a_folder_or_a_port(small_store: Path, state: Path) -> None:
    """The second gets one line that says what to set, and exit code 2."""
    with running_service(state, environment=_settings(small_store)) as service:
        port = service.url.rsplit(":", 1)[1]
        taken = _run(_settings(small_store, VTAG_PORT=port, VTAG_DATA_DIR=str(state / "other")))
        assert taken.returncode == 2
        assert taken.stderr.splitlines() == [
            f"vtag: 127.0.0.1:{port} is in use; set VTAG_PORT to another port"
        ]
        same = _run(_settings(small_store, VTAG_PORT="0", VTAG_DATA_DIR=str(state / "data")))
        assert same.returncode == 2
        [line] = same.stderr.splitlines()
        assert f"process {service.process.pid}" in line
        assert httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200


def test_a_database_that_is_not_there_is_one_line(small_store: Path, state: Path) -> None:
    """VTAG_DATABASE_URL is named, its password is not."""
    settings = _settings(
        small_store,
        VTAG_DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/none",
        VTAG_DATA_DIR=str(state / "data"),
    )
    found = _run(settings)
    assert found.returncode == 2
    [line] = found.stderr.splitlines()
    assert "VTAG_DATABASE_URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"VTAG_DEVICE": "tpu"}, "VTAG_DEVICE: must be cpu, cuda or cuda:N (got 'tpu')"),
        ({"VTAG_DEVICE": "cuda:99"}, "VTAG_DEVICE: cuda:99 "),
        ({"VTAG_DEVICE": "cuda:99", "VTAG_RUNTIME": "torchscript"}, "VTAG_DEVICE: cuda:99 "),
    ],
)
def test_a_device_that_is_not_there_is_one_line(
    small_store: Path, state: Path, settings: dict[str, str], reason: str
) -> None:
    """The networks never run elsewhere than they were told to: exit code 2 and the reason."""
    found = _run(_settings(small_store, VTAG_DATA_DIR=str(state / "data"), **settings))
    assert found.returncode == 2
    [line] = [line for line in found.stderr.splitlines() if line.startswith("vtag: ")]
    assert line.startswith(f"vtag: {reason}")
    assert "Traceback" not in found.stderr


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "VTAG_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_any_postgres_by_dsn_takes_the_place_of_ours(
    small_store: Path, state: Path, film: Film, postgres: str
) -> None:
    """The same service on a server of the operator: nothing embedded is started."""
    environment = _settings(small_store, VTAG_DATABASE_URL=postgres)
    for expected in (201, 200):  # what the first run wrote, the second finds
        with running_service(state, environment=environment) as service:
            answer = httpx.post(f"{service.url}/videos", files={"video": film()}, timeout=60)
            assert answer.status_code == expected, answer.text
            assert (
                len(
                    httpx.post(f"{service.url}/search", json={"query": "a"}, timeout=60).json()[
                        "data"
                    ]
                )
                == 1
            )
            assert not (state / "data" / "postgres").exists()


@pytest.mark.slow
def test_a_killed_postgres_comes_back_under_the_service(
    small_store: Path, state: Path, film: Film
) -> None:
    """Classification goes on meanwhile, the index answers 503 at most, and then works again."""
    with running_service(state, environment=_settings(small_store)) as service:
        assert (
            httpx.post(f"{service.url}/videos", files={"video": film()}, timeout=60).status_code
            == 201
        )
        kill_all(postmaster_guard.running_in(state / "data" / "postgres"))
        tagged = httpx.post(
            f"{service.url}/classify", files={"video": film()}, data={"labels": "a"}, timeout=30
        )
        assert tagged.status_code == 200
        statuses: list[int] = []

        def found_again() -> bool:
            answer = httpx.post(f"{service.url}/search", json={"query": "a"}, timeout=30)
            statuses.append(answer.status_code)
            return answer.status_code == 200 and len(answer.json()["data"]) == 1

        _wait(found_again, seconds=90)
        assert set(statuses) <= {200, 503}
        _wait(lambda: httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200)
