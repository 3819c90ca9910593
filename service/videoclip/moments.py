"""A video's timeline, and pictures at times that were planned from it: long videos in parts.

`decode_clips` plans and decodes in one go. Here the two are apart, so that whoever plans sees which
windows share pictures, and asks for each of them once.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.videoclip.clips import DecodedClip, VideoInfo
from service.videoclip.decoding import Limits, VideoFile, decode_planned
from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import resize_crop
from service.videoclip.timeline import Timeline, Times


def read_timeline(file: VideoFile, *, limits: Limits) -> tuple[VideoInfo, Timeline]:
    """What `file` holds and when each picture of it is shown. Decodes one picture.

    Raises:
        VideoError, OSError: as `decode_clips`.
    """
    found: list[Timeline] = []

    def first_picture(timeline: Timeline) -> Times:
        found.append(timeline)
        return np.zeros((1, 1))

    clip = decode_planned(file, plan=first_picture, shape=_one_pixel, limits=limits)
    return clip.info, found[-1]  # the last: the one that the picture was found by


def decode_at(
    file: VideoFile,
    times: Times,
    *,
    preprocessing: Preprocessing,
    limits: Limits,
    out: NDArray[np.uint8],
) -> DecodedClip:
    """Decode the pictures on screen at `times`, upright, resized and cropped.

    A damaged video may turn out shorter than its timeline said. Times past its end get its last
    picture, and `times_seconds` tells: what was planned from the longer timeline stays answerable.

    Args:
        file: a video file.
        times: float64 (V, T), seconds, not below 0.
        preprocessing: how pictures become squares; they are not normalised.
        limits: what the video may cost.
        out: uint8 (V, T, S, S, 3), filled.

    Raises:
        VideoError, OSError: as `decode_clips`.
        ValueError: `times` or `out` has another shape.
    """
    size = preprocessing.image_size
    if times.ndim != 2 or out.shape != (*times.shape, size, size, 3):
        raise ValueError(f"times {times.shape} and out {out.shape} do not fit")

    def before_the_end(timeline: Timeline) -> Times:
        clipped: Times = np.clip(times, 0.0, np.nextafter(timeline.end_seconds, -np.inf))
        return clipped

    clip = decode_planned(
        file, plan=before_the_end, shape=partial(resize_crop, p=preprocessing), limits=limits
    )
    out[...] = clip.pixels
    return clip


def _one_pixel(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture[:1, :1]
