"""`python -m tests.benchmarks.bench_preprocessing [VIDEO ...]`: ways to make CLIP's square.

Compares ways to go from an RGB frame to the resized, cropped square: time relative to open_clip's
own (Pillow, whole picture) and the difference from it in grey levels. Without videos, drawn
pictures of three sizes are used. Nothing is asserted: figures are for reading.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import crop_box, normalize, resize_crop
from tests.service.videoclip.films import picture

SIZE = 224
ROUNDS = 15
P = Preprocessing(
    image_size=SIZE,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
Rgb = NDArray[np.uint8]
BICUBIC = Image.Resampling.BICUBIC


def whole_picture(rgb: Rgb) -> Rgb:
    """open_clip: resize everything, then crop."""
    height, width, _ = rgb.shape
    short = min(width, height)
    new = (int(SIZE * width / short), int(SIZE * height / short))
    left, top = round((new[0] - SIZE) / 2), round((new[1] - SIZE) / 2)
    resized = Image.fromarray(rgb).resize(new, BICUBIC)
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))


def whole_box(rgb: Rgb) -> Rgb:
    """The box in one call, in the order that Pillow chooses."""
    height, width, _ = rgb.shape
    box = crop_box(width, height, size=SIZE)
    return np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), BICUBIC, box=box))


def rows_first(rgb: Rgb) -> Rgb:
    """The box in two calls: across, then down."""
    height, width, _ = rgb.shape
    left, top, right, bottom = crop_box(width, height, size=SIZE)
    across = Image.fromarray(rgb).resize((SIZE, height), BICUBIC, box=(left, 0, right, height))
    return np.asarray(across.resize((SIZE, SIZE), BICUBIC, box=(0, top, SIZE, bottom)))


def columns_first(rgb: Rgb) -> Rgb:
    """The box in two calls: down, then across."""
    height, width, _ = rgb.shape
    left, top, right, bottom = crop_box(width, height, size=SIZE)
    down = Image.fromarray(rgb).resize((width, SIZE), BICUBIC, box=(0, top, width, bottom))
    return np.asarray(down.resize((SIZE, SIZE), BICUBIC, box=(left, 0, right, SIZE)))


def reducing_gap(rgb: Rgb) -> Rgb:
    """The box, after a coarse reduction by whole factors: fast and not the same."""
    height, width, _ = rgb.shape
    box = crop_box(width, height, size=SIZE)
    picture = Image.fromarray(rgb)
    return np.asarray(picture.resize((SIZE, SIZE), BICUBIC, box=box, reducing_gap=2.0))


def swscale_bicubic(rgb: Rgb) -> Rgb:
    """libswscale on the cut square."""
    height, width, _ = rgb.shape
    left, top, right, bottom = (round(edge) for edge in crop_box(width, height, size=SIZE))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[top:bottom, left:right]))
    small = frame.reformat(width=SIZE, height=SIZE, format="rgb24", interpolation="BICUBIC")
    return small.to_ndarray().astype(np.uint8)


def ours(rgb: Rgb) -> Rgb:
    """service.videoclip.preprocessing.resize_crop."""
    return resize_crop(rgb, P)


WAYS: tuple[Callable[[Rgb], Rgb], ...] = (
    whole_picture,
    ours,
    whole_box,
    rows_first,
    columns_first,
    reducing_gap,
    swscale_bicubic,
)


def main() -> None:
    """Print a table for every picture, then the cost of normalising."""
    for name, frames in pictures(sys.argv[1:]):
        height, width, _ = frames[0].shape
        print(f"{name} {width} x {height}")
        reference = np.stack([whole_picture(rgb) for rgb in frames]).astype(int)
        base = seconds(whole_picture, frames[0])
        for way in WAYS:
            difference = np.abs(np.stack([way(rgb) for rgb in frames]).astype(int) - reference)
            taken = seconds(way, frames[0])
            print(
                f"  {way.__name__:16s} {taken * 1000:7.2f} ms  {base / taken:5.2f} x"
                f"   max {difference.max():3d}  mean {difference.mean():.5f}"
            )
    clip = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    print(f"normalize, 8 frames {best(lambda: normalize(clip, P)) * 1000:7.2f} ms")


def pictures(paths: list[str]) -> list[tuple[str, list[Rgb]]]:
    """The first frames of the given videos, or drawn ones."""
    if not paths:
        return [
            ("drawn", [picture(number, width=width, height=height) for number in range(3)])
            for width, height in ((640, 360), (1280, 720), (1920, 1080))
        ]
    result = []
    for path in paths:
        with av.open(path) as container:
            frames = [
                frame.to_ndarray(format="rgb24").astype(np.uint8)
                for frame, _ in zip(container.decode(video=0), range(3), strict=False)
            ]
        result.append((Path(path).name, frames))
    return result


def seconds(way: Callable[[Rgb], Rgb], rgb: Rgb) -> float:
    """Processor time of one call, the best of several: other work on the machine counts less."""
    return best(lambda: way(rgb))


def best(work: Callable[[], object]) -> float:
    """Least processor time of several calls, in seconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    main()
