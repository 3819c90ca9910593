"""`python -m tests.benchmarks.bench_decode [--frames N] [--rounds N] [--folder F] [KIND ...]`.

Our decoding against torchcodec, decord and a plain loop: the same pictures of the same files, one
request after another as a service sees them (open, find, decode, shrink to 224 pixels), one thread
each. The methods take turns; what is printed is the median of the ratios to ours within a round,
with the least and the greatest. Pictures are compared with those of a full decode.

torchcodec and decord are measured where they can be imported. Films are drawn once and kept in the
folder. Nothing is asserted: figures are for reading.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pictures import upright_rgb
from service.videoclip.preprocessing import resize_crop
from tests.benchmarks.films import KINDS, draw

P = Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
Pictures = NDArray[np.uint8]
Times = NDArray[np.float64]
Method = Callable[[Path, Times], Pictures]


def ours(path: Path, times: Times) -> Pictures:
    """What a decode worker does."""
    sampling = Sampling(mode="explicit", frames=len(times), times_seconds=tuple(times))
    clip = decode_clips(path, sampling=sampling, preprocessing=P, limits=Limits())
    pictures: Pictures = clip.pixels[0]
    return pictures


def key_pictures(path: Path, times: Times) -> Pictures:
    """The fast mode: as many pictures, key pictures only."""
    sampling = Sampling(mode="keyframes", frames=len(times))
    clip = decode_clips(path, sampling=sampling, preprocessing=P, limits=Limits())
    pictures: Pictures = clip.pixels[0]
    return pictures


def in_order(path: Path, times: Times) -> Pictures:
    """Decode everything, convert what is wanted: the truth."""
    found = np.empty((len(times), 224, 224, 3), np.uint8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first: float | None = None
        previous: av.VideoFrame | None = None
        wanted = 0
        for frame in container.decode(stream):
            assert isinstance(frame, av.VideoFrame)
            first = frame.time if first is None else first
            shown = frame.time - first
            start = wanted
            while wanted < len(times) and times[wanted] < shown - 1e-9:
                wanted += 1
            if wanted > start and previous is not None:
                found[start:wanted] = resize_crop(upright_rgb(previous), P)
            previous = frame
        if wanted < len(times) and previous is not None:
            found[wanted:] = resize_crop(upright_rgb(previous), P)
    return found


def torchcodec(module: Any, path: Path, times: Times) -> Pictures:
    """Its exact mode, at times that count from its first picture."""
    decoder = module.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    begin = decoder.metadata.begin_stream_seconds or 0.0
    frames = decoder.get_frames_played_at((times + begin).tolist()).data.numpy()
    return np.stack([resize_crop(frame, P) for frame in frames])


def decord(module: Any, path: Path, times: Times) -> Pictures:
    """By numbers, from its own list of times."""
    reader = module.VideoReader(str(path), num_threads=1)
    shown = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    numbers = np.searchsorted(shown - shown[0], times + 1e-6, side="right") - 1
    frames = reader.get_batch(numbers.tolist()).asnumpy()
    return np.stack([resize_crop(frame, P) for frame in frames])


def methods() -> dict[str, Method]:
    """Those that can be had here; ours is first."""
    found: dict[str, Method] = {"ours": ours}
    for name, module, method in (
        ("torchcodec", "torchcodec.decoders", torchcodec),
        ("decord", "decord", decord),
    ):
        try:
            found[name] = partial(method, importlib.import_module(module))
        except (ImportError, OSError, RuntimeError) as error:
            print(f"without {name}: {str(error).strip().splitlines()[0][:100]}")
    return found | {"in order": in_order, "key pictures": key_pictures}


def compare(path: Path, *, frames: int, rounds: int, plain: bool) -> None:
    """Measure one film and print a line for each method."""
    clip = decode_clips(path, sampling=Sampling(frames=frames), preprocessing=P, limits=Limits())
    end = clip.info.duration_seconds
    times = (np.arange(frames) + 0.5) / frames * end
    truth = in_order(path, times)
    taken: dict[str, list[tuple[float, float]]] = {}
    wrong: dict[str, str] = {}
    chosen = methods()
    if not plain:
        del chosen["in order"]
    for _ in range(rounds):
        for name, method in chosen.items():
            wall, processor = time.perf_counter(), time.process_time()
            try:
                pictures = method(path, times)
            except Exception as error:  # noqa: BLE001 - shown: others fail on some files
                wrong[name] = f"failed: {type(error).__name__}"
                continue
            now = (time.perf_counter() - wall, time.process_time() - processor)
            taken.setdefault(name, []).append(now)
            if name == "key pictures":
                wrong[name] = "other pictures"
                continue
            off = np.abs(pictures.astype(int) - truth).mean(axis=(1, 2, 3)) > 2.0
            wrong[name] = f"{int(off.sum())} of {frames} wrong" if off.any() else "exact"
    print(f"\n{path.name}, {clip.info.width} x {clip.info.height}, {end:.0f} s, {frames} pictures")
    for name in chosen:
        if name not in taken:
            print(f"  {name:13s} {wrong[name]}")
            continue
        wall, processor = (statistics.median(column) for column in zip(*taken[name], strict=True))
        ratios = [
            theirs[1] / mine[1] for mine, theirs in zip(taken["ours"], taken[name], strict=True)
        ]
        print(
            f"  {name:13s} {1000 * wall:8.0f} ms wall {1000 * processor:8.0f} ms processor   "
            f"{statistics.median(ratios):5.2f} x ours ({min(ratios):.2f} to {max(ratios):.2f})   "
            f"{wrong[name]}"
        )


def main() -> None:
    """Draw what is missing, then measure each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; none: all")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vtag-films")
    parser.add_argument("--plain", action="store_true", help="time the plain loop as well")
    parser.add_argument("--draw", action="store_true", help="draw the films and stop")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds or KINDS:
        try:
            path = draw(kind, options.folder)
        except av.FFmpegError as error:
            print(f"\n{kind}: this build of FFmpeg cannot write it ({error.strerror})")
            continue
        if not options.draw:
            for frames in options.frames:
                compare(path, frames=frames, rounds=options.rounds, plain=options.plain)


if __name__ == "__main__":
    main()
