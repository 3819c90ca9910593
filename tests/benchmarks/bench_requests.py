"""`python -m tests.benchmarks.bench_requests [--rounds N] [--repeat N] [--artefact FOLDER]`.

What the service adds to a video. One client asks a running service (`POST /classify` on loopback,
one connection, few labels, their vectors cached); against it stand decoding and inference of the
same file, called one after the other in a loop in this process: the same frames, as many threads
of ONNX Runtime, and nothing else, no scores either. Then the same request with 1,000 cached labels
against few, sent as form fields or as JSON, answered with five tags or with all.

The ways take turns in one run. Printed are medians over the rounds, with their quartiles, of wall
time and of processor time (of this process and all of the service's), which neighbours on the
machine disturb less. Nothing is asserted: figures are for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from service.encode.device import CPU
from service.encode.runtime import Model
from service.encode.staging import Staging
from service.store import ArtefactStore
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import load_manifest
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.rounds import Work, spread, take_turns
from tests.benchmarks.wire import Connection, classify_request
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.running_service import RunningService, running_service

FEW = ("a red circle growing", "a blue star", "a green ring moving left", "a white cross")
_WARMED_AT_ONCE = 100


def direct(folder: Path, film: Path, *, threads: int) -> Work:
    """Decoding and inference as a loop would call them."""
    manifest = load_manifest(folder)
    model = Model(folder, manifest=manifest, runtime="onnx", threads=threads, device=CPU)
    network = model.build(manifest.default_clip_weight)
    staging = Staging(model.runtime, device=CPU, preprocessing=manifest.preprocessing)

    async def run() -> object:
        clip = decode_clips(
            film,
            sampling=manifest.sampling,
            preprocessing=manifest.preprocessing,
            limits=Limits(),
        )
        return network.video(staging.normalized([clip.pixels]))

    return run


class Client:
    """One client of the service, on one connection."""

    def __init__(self, url: str, film: bytes) -> None:
        self._url = url
        self._film = film
        self._connection: Connection | None = None

    def asks(self, labels: Sequence[str], *, is_json: bool = False, top_k: int | None = 5) -> Work:
        """Return the work of one request."""
        options = {} if top_k is None else {"top_k": top_k}
        if is_json:
            whole = json.dumps({"labels": list(labels), **options})
            request = classify_request(self._url, self._film, labels=(), fields={"request": whole})
        else:
            fields = {name: str(value) for name, value in options.items()}
            request = classify_request(self._url, self._film, labels=labels, fields=fields)

        async def run() -> object:
            if self._connection is None or not self._connection.is_usable:
                self._connection = await Connection.open(self._url)
            answer = await self._connection.ask(request)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
            return answer

        return run


async def measure(
    service: RunningService, film: Path, folder: Path, options: argparse.Namespace
) -> None:
    """Run everything and print a line for each comparison."""
    client = Client(service.url, film.read_bytes())
    many = [f"{FEW[n % 4]} number {n}" for n in range(options.many)]
    ways = {
        "as fields, 5 tags": client.asks(many),
        "as fields, all tags": client.asks(many, top_k=None),
        "as JSON, 5 tags": client.asks(many, is_json=True),
        "as JSON, all tags": client.asks(many, is_json=True, top_k=None),
    }
    few = client.asks(FEW)
    works = [direct(folder, film, threads=options.threads), few, *ways.values()]
    for start in range(0, options.many, _WARMED_AT_ONCE):  # with all templates: one deadline each
        await client.asks(many[start : start + _WARMED_AT_ONCE])()
    tree = ProcessTree(service.process.pid)
    found = await take_turns(works, rounds=options.rounds, repeat=options.repeat, others=tree)
    for name, seconds in zip(("wall", "processor"), found, strict=True):
        each = 1e3 * seconds / options.repeat
        print(f"\n{name} time, medians and quartiles of {options.rounds} rounds")
        print(f"  direct loop, a video              {spread(each[:, 0])} ms")
        print(f"  /classify                         {spread(each[:, 1])} ms")
        print(f"  the service adds                  {spread(each[:, 1] - each[:, 0])} ms")
        print(f"  ratio                             {spread(each[:, 1] / each[:, 0])}")
        for number, way in enumerate(ways, start=2):
            more = spread(each[:, number] - each[:, 1])
            print(f"  {options.many} labels {way:20s} add {more} ms")


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=5, help="requests of each kind in a round")
    parser.add_argument("--many", type=int, default=1000, help="labels of the large set")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--artefact", type=Path, help="folder of a store; none: the demo model's")
    parser.add_argument("--film", type=Path, help="none: one is drawn, 640 x 360, 10 s")
    options = parser.parse_args()
    store = options.artefact or REPOSITORY / "model_store"
    manifest = ArtefactStore(store).active()
    folder = ArtefactStore(store).folder(manifest.name, manifest.revision)
    settings = {"VTAG_MODEL_STORE": str(store), "VTAG_ENCODER_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        film = options.film or draw_video(
            Path(name) / "film.mp4", seconds=10, fps=30, width=640, height=360
        )
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
            f" {manifest.name}, {options.threads} threads; {film.name}, {film.stat().st_size} bytes"
        )
        with running_service(Path(name), environment=settings) as service:
            asyncio.run(measure(service, film, folder, options))


if __name__ == "__main__":
    main()
