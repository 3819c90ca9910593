"""Told to stop twice: requests that would take minutes are dropped, and nothing is left."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.load import until
from tests.running_service import running_service


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_second_sigterm_waits_for_nothing(
    small_store: Path, state: Path, film: Callable[..., bytes]
) -> None:
    """One: unready, still serving. Two: the end at once, exit 0, no process, no file."""
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_DRAIN_SECONDS": "600",
        "VTAG_SHUTDOWN_SECONDS": "600",
        "VTAG_REQUEST_TIMEOUT_SECONDS": "600",
        "VTAG_DECODE_WORKERS": "1",
        "VTAG_MAX_FRAMES": "3",
    }
    long, begun, ended = film(seconds=300), threading.Event(), threading.Event()
    with running_service(state, environment=settings) as service:

        def ask() -> None:
            data = {"labels": "a", "segments": json.dumps({"length": 0.2})}
            try:
                with httpx.stream(
                    "POST",
                    f"{service.url}/classify",
                    files={"video": long},
                    data=data,
                    headers={"Accept": "text/event-stream"},
                    timeout=300,
                ) as answer:
                    for line in answer.iter_lines():
                        if line.startswith("event: "):
                            begun.set()
            except httpx.TransportError:
                pass
            ended.set()

        client = threading.Thread(target=ask)
        client.start()
        assert begun.wait(120)
        parent = psutil.Process(service.process.pid)
        family = [parent, *parent.children(recursive=True)]
        service.process.send_signal(signal.SIGTERM)

        def draining() -> bool:
            answer = httpx.get(f"{service.url}/readyz", timeout=60)
            return bool(answer.json().get("components", {}).get("intake") == "draining")

        until(draining)
        answer = httpx.post(f"{service.url}/embeddings", json={"input": "a dog"}, timeout=60)
        assert answer.status_code == 200
        assert not ended.is_set()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(120) == 0
        assert ended.wait(60)
        client.join()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert list((state / "data" / "spool").iterdir()) == []
    log = service.log.read_text()
    assert "told to stop again" in log
    assert "Traceback" not in log, log[-4000:]
