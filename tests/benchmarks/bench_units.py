"""`python -m tests.benchmarks.bench_units STORE`: what one segment costs a core.

Processor seconds of decoding eight pictures of a window of 10 s (H.264, 1280 x 720, a key picture
every 250, one thread, its six windows in one pass, as indexing does it), and of encoding
one clip, four at once, with the active artefact of STORE (`random_artefact` makes one as large as
ViT-B/16). For `unit_costs.toml`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from service.store import ArtefactStore
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from tests.benchmarks.bench_throughput import bare
from tests.benchmarks.films import draw
from tests.benchmarks.rounds import Work, spread

_ROUNDS: Final = 7
_WINDOWS: Final = 6
_CLIPS: Final = 4


def main() -> None:
    """Measure and print."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="vtag-units-") as name:
        film = draw("720p-60s-gop250", Path(name))
        _tell("decode", lambda: _decode(film), segments=_WINDOWS)
    store = ArtefactStore(Path(sys.argv[1]))
    manifest = store.active()
    folder = store.folder(manifest.name, manifest.revision)
    encode = bare(folder, manifest, threads=os.cpu_count() or 1)(_CLIPS, _CLIPS)
    _tell("encode", lambda: asyncio.run(_run(encode)), segments=_CLIPS)


def _decode(film: Path) -> None:
    preprocessing = Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    spans = [(10.0 * number, 10.0 * number + 10.0) for number in range(_WINDOWS)]
    sampling = Sampling(mode="uniform", frames=8)
    decode_clips(film, sampling=sampling, preprocessing=preprocessing, limits=Limits(), spans=spans)


async def _run(work: Work) -> None:
    await work()


def _tell(name: str, work: Callable[[], object], *, segments: int) -> None:
    work()
    seconds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        seconds.append((time.process_time() - began) / segments)
    print(f"{name}: {spread(np.array(seconds) * 1000)} ms of a core for a segment", flush=True)


if __name__ == "__main__":
    main()
