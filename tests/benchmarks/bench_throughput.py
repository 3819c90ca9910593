"""`python -m tests.benchmarks.bench_throughput --artefact STORE [--rounds N] [--clips N]`.

How much of what the network could do is left when a service is around it, with 16 clients. Four
ways take turns in one run:

- bare: ONNX Runtime called in a loop in this process, one clip at a time and four at a time, of
  which the faster counts, frames from memory (normalising them included: decoders leave bytes);
- encoder: the encoder process of the service, 16 askers, frames from memory;
- decoders: the pool of the service alone, as many children as cores, 16 askers;
- service: `POST /classify` on loopback, 16 clients, decoding included.

The slower of the two stages, min(bare, decoders), is what a service could do at most whose stages
have cores of their own. Here they share all cores, so a second of decoding is a second that the
network does not get: what both stages allow is then 1 / (1 / bare + 1 / decoders). Both ratios are
printed. The first is the stricter one, and the one to hold to 90 %; with weights of full size the
two hardly differ, since a clip takes the network a hundred times as long as the decoders.

STORE is a folder of artefacts with an active one; `nice python -m
tests.benchmarks.random_artefact STORE` makes one as large as ViT-B/16, with random weights. Without
it the demo model is measured, whose clips are so cheap that everything else shows. Nothing is
asserted: figures are for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from service.decode.pool import DecodePool
from service.encode.device import CPU
from service.encode.process import EncoderProcess
from service.encode.runtime import Model
from service.encode.staging import Staging
from service.frames import FrameSlots, map_slot
from service.store import ArtefactStore
from service.videoclip.decoding import Limits
from service.videoclip.manifest import Manifest
from tests.benchmarks.rounds import Work, spread, take_turns
from tests.benchmarks.wire import Connection, classify_request
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.running_service import running_service

CLIENTS = 16
LABELS = ("a dog", "rain", "a red square", "a street at night")
_SECONDS_OF_A_TURN = 10.0


def bare(folder: Path, manifest: Manifest, *, threads: int) -> Callable[[int, int], Work]:
    """The network in a loop, for so many clips, so many at a time."""
    model = Model(folder, manifest=manifest, runtime="onnx", threads=threads, device=CPU)
    network = model.build(manifest.default_clip_weight)
    staging = Staging(model.runtime, device=CPU, preprocessing=manifest.preprocessing)
    size = manifest.preprocessing.image_size
    shape = (1, manifest.frames_per_clip, size, size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def of(clips: int, batch: int) -> Work:
        async def run() -> object:
            for first in range(0, clips, batch):
                network.video(staging.normalized([pixels] * min(batch, clips - first)))
            return None

        return run

    return of


def many(ask: Callable[[], Awaitable[object]], *, clips: int) -> Work:
    """`CLIENTS` who never pause, until `clips` have been asked for."""

    async def client(left: list[None]) -> None:
        while left:
            left.pop()
            await ask()

    async def run() -> object:
        left = [None] * clips
        return await asyncio.gather(*(client(left) for _ in range(CLIENTS)))

    return run


async def measure(
    url: str, film: Path, folder: Path, manifest: Manifest, options: argparse.Namespace
) -> None:
    """Run all ways and print their rates and ratios."""
    size = manifest.preprocessing.image_size
    shape = (1, manifest.frames_per_clip, size, size, 3)
    async with AsyncExitStack() as stack:
        slots = FrameSlots(CLIENTS, slot_bytes=math.prod(shape))
        stack.callback(slots.close)
        encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=options.threads)
        await encoder.start()
        stack.push_async_callback(encoder.stop)
        decoders = DecodePool(
            slots, workers=options.threads, limits=Limits(), timeout_seconds=600.0
        )
        await decoders.start()
        stack.push_async_callback(decoders.stop)
        slot = await stack.enter_async_context(slots.lease(shape))
        pixels = map_slot(slots.descriptor, slot=slot)
        pixels[...] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

        async def encode() -> object:
            return await encoder.encode_clips(slot)

        async def decode() -> object:
            async with slots.lease(shape) as own:
                return await decoders.decode(
                    film,
                    sampling=manifest.sampling,
                    preprocessing=manifest.preprocessing,
                    slot=own,
                )

        idle: list[Connection] = []
        request = classify_request(
            url, film.read_bytes(), labels=LABELS, fields={"timeout_s": "600"}
        )

        async def classify() -> object:
            connection = idle.pop() if idle and idle[-1].is_usable else await Connection.open(url)
            answer = await connection.ask(request)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
            idle.append(connection)
            return answer

        await classify()
        loop = bare(folder, manifest, threads=options.threads)
        await loop(1, 1)()
        began = time.perf_counter()
        await loop(1, 1)()
        per_clip = time.perf_counter() - began
        clips = options.clips or max(2 * CLIENTS, math.ceil(_SECONDS_OF_A_TURN / per_clip))
        films = options.clips or max(clips, 100)
        print(f"a clip takes the network {1e3 * per_clip:.1f} ms; {clips} clips in a turn")
        works = [
            loop(clips, 1),
            loop(clips, 4),
            many(encode, clips=clips),
            many(decode, clips=films),
            many(classify, clips=clips),
        ]
        wall, _ = await take_turns(works, rounds=options.rounds)
    numbers = np.array([[clips, clips, clips, films, clips]])
    ones, fours, process, decoding, whole = (numbers / wall).T
    network = np.maximum(ones, fours)
    slower = np.minimum(network, decoding)
    shared = 1 / (1 / network + 1 / decoding)
    print(f"{options.rounds} rounds, videos a second, median (quartiles)")
    print(f"  bare loop, one clip at a time        {spread(ones)}")
    print(f"  bare loop, four clips at a time      {spread(fours)}")
    print(f"  encoder process, {CLIENTS} askers          {spread(process)}")
    print(f"  decoders, {options.threads} children               {spread(decoding)}")
    print(f"  service, {CLIENTS} clients                 {spread(whole)}")
    print("ratios within a round, median (quartiles)")
    print(f"  encoder process / bare loop          {spread(process / network)}")
    print(f"  service / slower of the stages       {spread(whole / slower)}")
    print(f"  service / both on the same cores     {spread(whole / shared)}")


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artefact", type=Path, metavar="STORE", help="none: the demo model's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, help="in a turn; none: as many as take 10 s, 32 least")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--film", type=Path, help="none: one is drawn, 640 x 360, 10 s")
    options = parser.parse_args()
    root = options.artefact or REPOSITORY / "model_store"
    if not (root / "active.json").exists():
        parser.error(f"nothing there; nice python -m tests.benchmarks.random_artefact {root}")
    store = ArtefactStore(root)
    manifest = store.active()
    settings = {
        "VTAG_MODEL_STORE": str(root),
        "VTAG_ENCODER_THREADS": str(options.threads),
        "VTAG_DECODE_WORKERS": str(options.threads),
        "VTAG_REQUEST_TIMEOUT_SECONDS": "600",
    }
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        film = options.film or draw_video(
            Path(name) / "film.mp4", seconds=10, fps=30, width=640, height=360
        )
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
            f" {manifest.name} {manifest.architecture.get('name', '')}, {options.threads} threads;"
            f" {film.name}, {film.stat().st_size} bytes"
        )
        with running_service(Path(name), environment=settings, start_seconds=600) as service:
            folder = store.folder(manifest.name, manifest.revision)
            asyncio.run(measure(service.url, film, folder, manifest, options))


if __name__ == "__main__":
    main()
