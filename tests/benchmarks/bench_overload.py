"""`python -m tests.benchmarks.bench_overload [--seconds N] [--times X] [--deadline S]`.

Twenty times as many requests as the service can answer, for five minutes, on loopback. First the
best it can do is looked for: clients that never pause, 1, 2, 4 and 8 of them. Then requests arrive
as a Poisson process at `--times` that rate, whatever becomes of them, each with the whole video in
its body and `Prefer: wait` as its deadline. Then the best is measured once more, since machines
change their pace in minutes. It stops by itself.

Printed are the goodput in time against the best, how long those took that were let in and those
that were refused, every status, the memory of all processes of the service over time, and who used
the processors: the client that makes the load runs on the same cores. It costs little, but at a
thousand requests a second not nothing, and what it and the refusals take, the work lacks. So there
is a second ratio: goodput by processor second of the service, during the load and at its best. The
first one is what the promise is about, the second tells how much of a loss is the client's doing.

A film that is cheap to decode makes the test harder: twenty times the capacity is then more
requests to turn away. `--film` and `--artefact` say what is asked. Nothing is asserted: figures are
for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.benchmarks.open_loop import Arrivals, Outcomes, quantiles, saturate
from tests.benchmarks.process_tree import MIB, ProcessTree
from tests.benchmarks.wire import classify_request
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.running_service import running_service

LABELS = ("a red circle growing", "a blue star", "a green ring moving left", "a white cross")
CLIENTS = (1, 2, 4, 8)
_SHORTEST_DEADLINE_SECONDS = 2


@dataclass
class Watch:
    """Memory of the service once a second, and its processors, lest a process ends unseen."""

    tree: ProcessTree
    seconds: list[float] = field(default_factory=list)
    memory: list[Counter[str]] = field(default_factory=list)

    async def run(self) -> None:
        """Look until cancelled."""
        began = time.perf_counter()
        while True:
            self.seconds.append(time.perf_counter() - began)
            self.memory.append(self.tree.rss_bytes())
            self.tree.processor_seconds()
            await asyncio.sleep(1.0)

    def show(self) -> None:
        """Print a line for each role, and the growth of all."""
        print("memory, MiB: at the start, after a tenth, in the middle, at the end, most")
        points = [0, len(self.memory) // 10, len(self.memory) // 2, -1]
        for name in sorted(set().union(*self.memory)):
            values = [found[name] / MIB for found in self.memory]
            shown = " ".join(f"{values[point]:8.0f}" for point in points)
            print(f"  {name:10s} {shown} {max(values):8.0f}")
        total = np.array([sum(found.values()) / MIB for found in self.memory])
        late = len(total) // 2
        if late > 2:
            minutes = np.array(self.seconds) / 60
            slope = np.polyfit(minutes[late:], total[late:], 1)[0]
            print(
                f"  all: {total[late:].mean():.0f} in the second half, {slope:+.2f} a minute there"
            )


async def best(url: str, request: bytes, *, seconds: float) -> tuple[float, int, list[float]]:
    """Return the highest rate of good answers, with how many clients, and how long each took."""
    found = []
    for clients in CLIENTS:
        taken = await saturate(url, request, clients=clients, seconds=seconds)
        print(f"  {clients} clients: {len(taken) / seconds:7.2f} a second, {quantiles(taken)}")
        found.append((len(taken) / seconds, clients, taken))
    return max(found)


async def measure(url: str, pid: int, film: bytes, options: argparse.Namespace) -> None:
    """Run everything and print it."""
    plain = classify_request(url, film, labels=LABELS)
    tree = ProcessTree(pid)
    await saturate(url, plain, clients=2, seconds=min(5.0, options.warm_seconds))
    print(f"best goodput, {options.warm_seconds:g} s each")
    rate, clients, taken = await best(url, plain, seconds=options.warm_seconds)
    lone = float(np.quantile(taken, 0.99))
    deadline = options.deadline or max(_SHORTEST_DEADLINE_SECONDS, math.ceil(5 * lone))
    request = classify_request(url, film, labels=LABELS, headers={"Prefer": f"wait={deadline}"})
    print(
        f"load: {options.times:g} x {rate:.2f} = {options.times * rate:.1f} a second for"
        f" {options.seconds:g} s, {len(request)} bytes each, deadline {deadline} s"
    )
    watch = Watch(tree)
    watching = asyncio.create_task(watch.run())
    before, own = tree.processor_seconds(), time.process_time()
    began = time.perf_counter()
    arrivals = Arrivals(url, request, most_open=options.most_open)
    outcomes = await arrivals.run(rate=options.times * rate, seconds=options.seconds)
    elapsed = time.perf_counter() - began
    own = time.process_time() - own
    used = tree.processor_seconds()
    used.subtract(before)
    watching.cancel()
    idle, own_best = tree.processor_seconds(), time.process_time()
    again = await saturate(url, plain, clients=clients, seconds=options.warm_seconds)
    best_used = tree.processor_seconds()
    best_used.subtract(idle)
    own_best = time.process_time() - own_best
    rate_again = len(again) / options.warm_seconds
    print(f"  {clients} clients once more: {rate_again:7.2f} a second")
    show(outcomes, seconds=options.seconds, deadline=deadline, best_rate=max(rate, rate_again))
    work = sum(used.values())
    good = len(outcomes.good_at) / work
    good_best = len(again) / max(1e-9, sum(best_used.values()))
    print(
        "processors, share of one core: " + shares(used, elapsed) + f", client {own / elapsed:.2f}"
    )
    print(
        f"  at the best: {shares(best_used, options.warm_seconds)},"
        f" client {own_best / options.warm_seconds:.2f}"
    )
    print(f"  goodput by processor second of the service, against the best: {good / good_best:.3f}")
    watch.show()


def shares(used: Counter[str], seconds: float) -> str:
    """Cores used by role."""
    return ", ".join(f"{name} {value / seconds:.2f}" for name, value in sorted(used.items()))


def show(outcomes: Outcomes, *, seconds: float, deadline: float, best_rate: float) -> None:
    """Print what became of the requests."""
    good = sum(at <= seconds for at in outcomes.good_at) / seconds
    in_time = [taken for taken in outcomes.admitted if taken <= deadline]
    share = len(in_time) / max(1, len(outcomes.admitted))
    quarter = seconds / 4
    quarters = [
        sum(n * quarter <= at < (n + 1) * quarter for at in outcomes.good_at) / quarter / best_rate
        for n in range(4)
    ]
    print(f"goodput {good:.2f} a second, {good / best_rate:.3f} of the best ({best_rate:.2f})")
    print("  by quarters of the time: " + ", ".join(f"{value:.3f}" for value in quarters))
    print(f"admitted: {len(outcomes.admitted)}, {outcomes.late} without an answer in time")
    print(f"  {quantiles(outcomes.admitted)}; within {deadline} s: {100 * share:.2f} %")
    print(f"refused: {len(outcomes.refused)}; {quantiles(outcomes.refused)}")
    slow = sum(taken > 0.05 for taken in outcomes.refused) / max(1, len(outcomes.refused))
    print(f"  later than 50 ms: {100 * slow:.2f} %")
    print(f"sent {outcomes.sent}, by status and code:")
    for (status, code), count in sorted(outcomes.counts.items()):
        print(f"  {status} {code or 'good':24s} {count}")
    print(f"  without any answer       {outcomes.lost.total()} {dict(outcomes.lost) or ''}")
    print(f"  not sent, all connections in use {outcomes.held_back}")
    print(f"the client sent them late by {quantiles(outcomes.lags)}")


def main() -> None:
    """Start the service, load it, stop it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--times", type=float, default=20.0, help="the best goodput")
    parser.add_argument(
        "--deadline", type=int, help="s; none: 2, or 5 times the slowest at the best"
    )
    parser.add_argument(
        "--warm-seconds", type=float, default=20.0, help="for each look at the best"
    )
    parser.add_argument("--most-open", type=int, default=2000, help="connections of the client")
    parser.add_argument("--artefact", type=Path, metavar="STORE", help="none: the demo model's")
    parser.add_argument("--film", type=Path, help="none: one is drawn, 1280 x 720, 10 s")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    store = options.artefact or REPOSITORY / "model_store"
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        film = options.film or draw_video(
            Path(name) / "film.mp4", seconds=10, fps=30, width=1280, height=720
        )
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
            f" {film.name}, {film.stat().st_size} bytes"
        )
        settings = {"VTAG_MODEL_STORE": str(store)}
        with running_service(Path(name), environment=settings) as service:
            asyncio.run(measure(service.url, service.process.pid, film.read_bytes(), options))


if __name__ == "__main__":
    main()
