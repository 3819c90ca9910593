"""More than fits, clients that leave, uploads that never end: bounded, counted, cleaned up."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_lifecycle import _half_an_upload, _wait
from tests.running_service import running_service

Film = Callable[..., bytes]


def _metric(url: str, name: str) -> float:
    for line in httpx.get(f"{url}/metrics", timeout=60).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


def _left_at_work(url: str) -> float:
    """How many clients left after their body had come."""
    stages = ("wait", "decode", "batch", "encode", "answer")
    return sum(_metric(url, f'vtag_cancelled_total{{stage="{stage}"}}') for stage in stages)


def test_beyond_capacity_is_503_with_a_time_to_come_back(
    small_store: Path, state: Path, film: Film
) -> None:
    """Two at a time are let in; the others are refused at once, and all is well afterwards."""
    environment = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_MAX_IN_FLIGHT": "2",
        "VTAG_DECODE_WORKERS": "1",
    }
    answers: list[httpx.Response] = []
    with running_service(state, environment=environment) as service:
        heavy = film(seconds=20, width=1280)

        def send() -> None:
            answers.append(
                httpx.post(
                    f"{service.url}/videos",
                    files={"video": heavy},
                    data={"segments": '{"length": 0.5}'},
                    timeout=60,
                )
            )

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 201, 503}
        assert 503 in statuses
        assert {200, 201} & set(statuses)
        for answer in answers:
            if answer.status_code == 503:
                assert answer.json()["code"] == "saturated"
                assert answer.json()["retryable"] is True
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert _metric(service.url, 'vtag_rejected_total{reason="queue_full"}') == statuses.count(
            503
        )
        assert _metric(service.url, 'vtag_inflight_requests{lane="video"}') == 0
        assert httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200


@pytest.mark.slow
def test_work_for_a_client_that_left_is_dropped(small_store: Path, state: Path, film: Film) -> None:
    """Leaving while the upload runs or while the video is decoded frees file and place."""
    environment = {"VTAG_MODEL_STORE": str(small_store), "VTAG_DECODE_WORKERS": "1"}
    spool = state / "data" / "spool"
    with running_service(state, environment=environment) as service:
        with _half_an_upload(service.url):
            _wait(lambda: any(spool.iterdir()))
        _wait(lambda: not any(spool.iterdir()))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{service.url}/videos",
                files={"video": film(seconds=20, width=1280)},
                data={"segments": '{"length": 0.1}'},
                timeout=httpx.Timeout(60, read=0.2),
            )
        _wait(lambda: not any(spool.iterdir()))
        _wait(lambda: _left_at_work(service.url) == 1)
        assert _metric(service.url, 'vtag_cancelled_total{stage="receive"}') == 1
        assert httpx.get(f"{service.url}/videos", timeout=60).json()["data"] == []
        answer = httpx.post(
            f"{service.url}/classify", files={"video": film()}, data={"labels": "a"}, timeout=30
        )
        assert answer.status_code == 200


@pytest.mark.slow
def test_sizes_and_silence_are_bounded(small_store: Path, state: Path) -> None:
    """413 before the body is sent, 413 for a body that lies, 408 for one that stops."""
    environment = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_MAX_UPLOAD_BYTES": "10000",
        "VTAG_MAX_JSON_BYTES": "1000",
        "VTAG_UPLOAD_STALL_SECONDS": "0.5",
    }
    with running_service(state, environment=environment) as service:
        large = httpx.post(f"{service.url}/classify", files={"video": b"x" * 20_000}, timeout=60)
        assert (large.status_code, large.json()["limit"]) == (413, 10_000)
        text = httpx.post(f"{service.url}/search", json={"query": "x" * 2000}, timeout=60)
        assert text.status_code == 413
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(
                b"POST /classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 9999999999\r\n\r\n"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 413")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(
                b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 408")
        assert list((state / "data" / "spool").iterdir()) == []
