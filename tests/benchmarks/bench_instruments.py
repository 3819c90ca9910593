"""`python -m tests.benchmarks.bench_instruments [--rounds N] [--repeat N]`.

What counting costs a request. One client asks a running service (`POST /classify` on loopback, the
demo model) with its instruments working and silenced in turns, in the same process. Printed are
medians and quartiles over the rounds of wall and processor time, and of the ratio of neighbours.

Beside it, without any noise of requests: the instruments that one such request moves, called in a
loop in this process, as a share of that request; and how long one scrape takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from service.encode.dispatcher import BatchRecord
from service.encode.instruments import BatchInstruments
from service.metrics import Metrics
from tests.benchmarks.bench_requests import FEW, Client
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.rounds import Work, spread, take_turns
from tests.benchmarks.wire import Connection
from tests.drawn_video import draw_video
from tests.running_service import RunningService, running_service

_LOOPS = 5_000
_STAGES = ("receive", "wait", "decode", "text", "encode", "score")


def count_one(metrics: Metrics, batches: BatchInstruments) -> None:
    """Move what one request to /classify moves: door, lanes, body, batch, answer."""
    for lane in ("upload", "video"):
        metrics.in_flight.labels(lane).set(1)
        metrics.in_flight.labels(lane).set(0)
    metrics.upload_bytes.inc(100_000)
    batches(BatchRecord("clips", 1, 0.02, "idle", 0.01, 0.001, "ok"))
    metrics.frames.inc(8)
    metrics.video_seconds.inc(10)
    metrics.labels.inc(4)
    metrics.text_cache_hits.inc(4)
    metrics.top_score.labels("softmax").observe(0.9)
    metrics.requests.labels("/classify", "2xx").inc()
    metrics.request_seconds.labels("/classify").observe(0.04)
    for stage in _STAGES:
        metrics.stage_seconds.labels(stage).observe(0.01)


def alone_seconds() -> float:
    """Return the processor time of the instruments of one request, in a loop."""
    metrics = Metrics()
    batches = BatchInstruments(metrics)
    taken = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(_LOOPS):
            count_one(metrics, batches)
        taken.append((time.process_time() - began) / _LOOPS)
    return float(np.median(taken))


async def measure(service: RunningService, film: Path, options: argparse.Namespace) -> None:
    """Print everything."""
    ask = Client(service.url, film.read_bytes()).asks(FEW)

    def after(number: signal.Signals) -> Work:
        async def run() -> object:
            service.process.send_signal(number)
            return await ask()

        return run

    for _ in range(10):
        await ask()  # labels, connections, caches
    works = [after(signal.SIGUSR2), after(signal.SIGUSR1)]
    tree = ProcessTree(service.process.pid)
    found = await take_turns(works, rounds=options.rounds, repeat=options.repeat, others=tree)
    for name, seconds in zip(("wall", "processor"), found, strict=True):
        each = 1e3 * seconds / options.repeat
        print(f"\n{name} time of /classify, medians and quartiles of {options.rounds} rounds")
        print(f"  silenced           {spread(each[:, 0])} ms")
        print(f"  counting           {spread(each[:, 1])} ms")
        print(f"  counting, of that  {spread(100 * each[:, 1] / each[:, 0])} %")
    alone = alone_seconds()
    request = float(np.median(found[1][:, 0])) / options.repeat
    print(f"\ninstruments of one request alone: {1e6 * alone:.0f} us of processor time,", end=" ")
    print(f"{100 * alone / request:.2f} % of the {1e3 * request:.1f} ms of a request")
    await _scrapes(service)


async def _scrapes(service: RunningService) -> None:
    host = service.url.removeprefix("http://")
    connection = await Connection.open(service.url)
    taken = []
    for _ in range(30):
        request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        answer = await connection.ask(request)
        taken.append(1e3 * answer.seconds)
    print(f"one scrape: {spread(np.array(taken))} ms, {len(answer.body)} bytes")
    connection.close()


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=10, help="requests of each kind in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        film = draw_video(Path(name) / "film.mp4", seconds=10, fps=30, width=640, height=360)
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        with running_service(Path(name), module="tests.benchmarks.quiet_service") as service:
            asyncio.run(measure(service, film, options))


if __name__ == "__main__":
    main()
