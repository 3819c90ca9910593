"""`make bench`: what a request costs on this machine, stage by stage, against a running service.

Starts the service on a fresh data folder with the active artefact, sends real videos over HTTP and
prints the figures as a table. Nothing is asserted: figures are for reading.
"""

import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from tests.drawn_video import draw_video
from tests.running_service import running_service

SEQUENTIAL = 30
CONCURRENT = 60
CLIENTS = 4
LABELS = [f"a {colour} {noun}" for colour in ("red", "green", "blue", "white") for noun in (
    "circle", "square", "star", "ring", "cross")]  # fmt: skip


def main() -> None:
    """Measure cold and warm classification, concurrency, indexing and search; print a table."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        folder = Path(name)
        clip = draw_video(
            folder / "clip.mp4", seconds=10, fps=30, width=640, height=360
        ).read_bytes()
        started = time.perf_counter()
        with (
            running_service(folder) as service,
            httpx.Client(base_url=service.url, timeout=120) as client,
        ):
            print(f"{'start until ready':34s} {time.perf_counter() - started:8.2f} s")
            measure(client, clip)


def measure(client: httpx.Client, clip: bytes) -> None:
    """Run every workload once and print its figures."""
    stages: defaultdict[str, list[float]] = defaultdict(list)

    def classify() -> None:
        answer = client.post(
            "/classify", files={"video": ("clip.mp4", clip)}, data={"labels": LABELS}
        )
        answer.raise_for_status()
        for stage, milliseconds in answer.json()["timings_ms"].items():
            stages[stage].append(milliseconds)

    def search() -> None:
        client.post("/search", json={"query": "a red square moving right"}).raise_for_status()

    def index() -> None:
        client.post("/videos", files={"video": ("clip.mp4", clip)}).raise_for_status()

    report("classify, first (20 new labels)", [timed(classify)])
    stages.clear()
    report("classify, one after another", [timed(classify) for _ in range(SEQUENTIAL)])
    for stage, values in stages.items():
        print(f"    {stage:30s} {np.median(values):8.1f} ms")
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = list(pool.map(lambda _: timed(classify), range(CONCURRENT)))
    report(f"classify, {CLIENTS} clients", times)
    print(f"    {CONCURRENT / (time.perf_counter() - started):.1f} requests a second")
    report("index a video", [timed(index)])
    report("search", [timed(search) for _ in range(SEQUENTIAL)])


def timed(work: Callable[[], None]) -> float:
    """Seconds that the work took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(name: str, seconds: list[float]) -> None:
    """One line: median and 95th percentile in milliseconds."""
    median, slow = np.percentile(seconds, [50, 95]) * 1000
    print(f"{name:34s} {median:8.1f} ms   p95 {slow:8.1f} ms   ({len(seconds)} requests)")


if __name__ == "__main__":
    main()
