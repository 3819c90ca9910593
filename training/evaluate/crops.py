"""Three squares of every picture, for measuring in "4x3 views" (ViFi-CLIP, Text4Vis).

The picture is resized until its shorter side is the network's size, whatever the model's own
resizing is, and squares are cut at both ends and in the middle of the longer side: together they
see all of it. A square counts as a view. The service takes the middle alone.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.videoclip.clips import Plan
from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import Box, resize_box

Crops = Literal[1, 3]
CROPS: tuple[Crops, ...] = (1, 3)


def three_boxes(width: int, height: int, *, size: int) -> tuple[Box, Box, Box]:
    """The parts of a picture that become the squares: (left, top, right, bottom) in pixels.

    In the resized picture they begin at 0, s and 2s, with s half of what the longer side is more
    than `size`, rounded down (ViFi-CLIP's code).
    """
    across = width > height
    longer = int(size * max(width, height) / min(width, height))
    step = (longer - size) // 2
    scale = max(width, height) / longer

    def box(place: int) -> Box:
        start, end = place * scale, min((place + size) * scale, float(max(width, height)))
        if across:
            return (start, 0.0, end, float(height))
        return (0.0, start, float(width), end)

    return box(0), box(step), box(2 * step)


def decode_three_crops(
    path: Path, *, plan: Plan, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """A video's clips in three squares each: uint8 (3 * V, T, S, S, 3), the squares of a clip side
    by side. Raises as `service.videoclip.decoding.decode_planned`.
    """
    size = preprocessing.image_size
    clip = decode_planned(
        path,
        plan=plan,
        shape=partial(_three, preprocessing=preprocessing),
        limits=Limits(),
    )
    views, frames = clip.pixels.shape[:2]
    pixels = clip.pixels.reshape(views, frames, 3, size, size, 3)
    return np.moveaxis(pixels, 2, 1).reshape(views * 3, frames, size, size, 3)


def _three(rgb: NDArray[np.uint8], *, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The squares of one picture, one below the other: uint8 (3 * S, S, 3)."""
    size = preprocessing.image_size
    height, width, _ = rgb.shape
    return np.concatenate(
        [
            resize_box(rgb, box, size=size, interpolation=preprocessing.interpolation)
            for box in three_boxes(width, height, size=size)
        ]
    )
