"""A real Prometheus that watches one service, often."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.operations.programs import program
from tests.operations.rules import hurried

SCRAPE_SECONDS = 1.0
"""Of the Prometheus here; that of the compose file scrapes every five, see `rules.TIMES`."""

EVALUATION_SECONDS = 0.5
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Prometheus:
    """Where it listens."""

    url: str

    def query(self, expression: str, *, at: float | None = None) -> list[dict[str, Any]]:
        """Return the samples of an instant query.

        Raises:
            RuntimeError: the expression is wrong.
        """
        found: list[dict[str, Any]] = self._get(
            "query", {"query": expression, **({} if at is None else {"time": at})}
        )["result"]
        return found

    def between(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Return the series of a range query, each with `metric` and `values`."""
        window = {"start": start, "end": end, "step": step}
        found: list[dict[str, Any]] = self._get("query_range", {"query": expression, **window})[
            "result"
        ]
        return found

    def firing(self) -> dict[str, float]:
        """Return the names of the alerts that fire -> `time.time()` since when they are active."""
        found = self._get("alerts", {})["alerts"]
        return {
            each["labels"]["alertname"]: datetime.fromisoformat(each["activeAt"]).timestamp()
            for each in found
            if each["state"] == "firing"
        }

    def _get(self, what: str, parameters: dict[str, Any]) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=60).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{answer['error']}: {parameters}")
        return answer["data"]


@contextmanager
def prometheus(folder: Path, *, target: str) -> Iterator[Prometheus]:
    """Watch the service at `target` (host:port), with the rules of deploy/, hurried.

    Args:
        folder: an existing folder for its files.
        target: what is scraped, as the job `vtag`.
    """
    (folder / "rules.yml").write_text(hurried())
    interval = f"{SCRAPE_SECONDS:g}s"
    configuration = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": f"{1000 * EVALUATION_SECONDS:g}ms",
        },
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "vtag", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + _START_SECONDS
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"prometheus did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
