"""`python -m tests.benchmarks.bench_decoding [VIDEO ...]`: seeking against decoding in order.

For each video, 8 uniform pictures at 224 pixels: `decode_clips`, and the plain way that decodes
every frame and converts the wanted ones. One decoder thread, processor time, best of several.
Without videos, films of 20 s and of 2 min are drawn. Nothing is asserted: figures are for reading.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pictures import upright_rgb
from service.videoclip.preprocessing import resize_crop
from tests.service.videoclip.films import write_film

P = Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
EIGHT = Sampling(frames=8)
ROUNDS = 5
# Name -> pictures (25 a second) and distance of key pictures.
DRAWN = {
    "20-seconds-key-every-250.mp4": (500, 250),
    "20-seconds-key-every-30.mp4": (500, 30),
    "2-minutes-key-every-250.mp4": (3000, 250),
    "2-minutes-key-every-30.mp4": (3000, 30),
}


def main() -> None:
    """Print a line for each video."""
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as folder:
        paths = [Path(name) for name in sys.argv[1:]] or [
            draw(Path(folder) / name, count=count, gop=gop) for name, (count, gop) in DRAWN.items()
        ]
        for path in paths:
            clip = decode_clips(path, sampling=EIGHT, preprocessing=P, limits=Limits())
            times = clip.times_seconds[0]
            chosen = measure(
                lambda path=path: decode_clips(  # type: ignore[misc]
                    path, sampling=EIGHT, preprocessing=P, limits=Limits()
                )
            )
            plain = measure(lambda path=path, times=times: in_order(path, times))  # type: ignore[misc]
            print(
                f"{path.name:40.40s} {clip.info.width:4d} x {clip.info.height:<4d} "
                f"{clip.info.duration_seconds:6.1f} s  {chosen * 1000:8.1f} ms  "
                f"in order {plain * 1000:8.1f} ms  {plain / chosen:5.2f} x"
            )


def draw(path: Path, *, count: int, gop: int) -> Path:
    """A film of 160 x 90."""
    options = {"preset": "veryfast"}
    pts = [40 * number for number in range(count)]
    return write_film(path, pts=pts, width=160, height=90, gop=gop, options=options)


def in_order(path: Path, times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Decode all frames, convert those first shown at `times`."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        first = None
        for frame in container.decode(stream):
            assert isinstance(frame, av.VideoFrame)
            first = frame.time if first is None else first
            if np.any(np.abs(frame.time - first - times) < 1e-6):
                resize_crop(upright_rgb(frame), P)


def measure(work: Callable[[], object]) -> float:
    """Least processor time of several calls, in seconds."""
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    main()
