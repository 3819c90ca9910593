"""Where one shot of a video ends and the next begins: hard cuts, found by change of the picture.

Pictures are compared small, by colour histogram and by place. A cut is a change that is large
itself, large beside the changes around it (so that fast motion is none), and lasting (so that a
flash is none). Dissolves and fades have no such moment; they stay inside a shot.

About eight pictures a second are looked at first. Between two of them that differ by a cut, every
picture is, so that the cut is placed at a picture and not near one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.videoclip.decoding import Limits, VideoFile, decode_planned
from service.videoclip.timeline import Timeline, Times, frames_on_screen

Thumbs = NDArray[np.uint8]

_SIDE: Final = 24
_LEVELS: Final = 8  # of each colour in a histogram
_STEP_SECONDS: Final = 0.125
_AROUND: Final = 8
"""Pictures on either side that a change is compared with: a second."""

_LEAST_CHANGE: Final = 0.22
_LEAST_RATIO: Final = 2.5
_LEAST_SHOT_SECONDS: Final = 0.4


def find_cuts(file: VideoFile, *, start: float, end: float, limits: Limits) -> list[float]:
    """Presentation times of the first pictures of shots that begin in [start, end), ascending.

    It looks one second further on either side, so that parts of a video that touch give the cuts
    of the whole.

    Args:
        file: a video file.
        start: seconds.
        end: seconds, after `start`.
        limits: what the video may cost.

    Raises:
        VideoError, OSError: as `decode_clips`.
    """
    margin = _AROUND * _STEP_SECONDS
    # On one grid for the whole video, wherever a part begins.
    first = np.floor(max(0.0, start - margin) / _STEP_SECONDS)
    grid = np.arange(first, np.ceil((end + margin) / _STEP_SECONDS) + 1) * _STEP_SECONDS
    times, thumbs = _look(file, grid, limits=limits)
    cuts: list[float] = []
    for number in cut_numbers(thumbs, times):
        if times[number] < start or times[number - 1] >= end:
            continue
        exact = _refine(file, times[number - 1], times[number], limits=limits)
        if exact is not None and start <= exact < end:
            cuts.append(exact)
    return cuts


def cut_numbers(thumbs: Thumbs, times: Times) -> list[int]:
    """Numbers of the pictures that a cut lies before.

    Args:
        thumbs: uint8 (N, h, w, 3), as `thumb` makes them.
        times: float64 (N,), ascending, when they are shown.
    """
    change = changes(thumbs)
    found: list[int] = []
    last = times[0] if len(times) else 0.0
    for number in np.flatnonzero(change >= _LEAST_CHANGE).tolist():
        around = np.concatenate(
            [change[max(1, number - _AROUND) : number], change[number + 1 :][:_AROUND]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        is_alone = change[number] >= _LEAST_RATIO * usual
        after = thumbs[min(number + 1, len(thumbs) - 1)]
        lasts = _difference(thumbs[number - 1], after) >= _LEAST_CHANGE
        lasts &= _difference(thumbs[max(0, number - 2)], thumbs[number]) >= _LEAST_CHANGE
        if is_alone and lasts and times[number] - last >= _LEAST_SHOT_SECONDS:
            found.append(number)
            last = times[number]
    return found


def changes(thumbs: Thumbs) -> NDArray[np.float64]:
    """How much each picture differs from the one before, in [0, 1]: (N,), the first is 0."""
    result = np.zeros(len(thumbs))
    for number in range(1, len(thumbs)):
        result[number] = _difference(thumbs[number - 1], thumbs[number])
    return result


def thumb(picture: NDArray[np.uint8]) -> Thumbs:
    """A picture of any size, uint8 (H, W, 3), as a small square of fixed size."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small)


def _difference(one: Thumbs, other: Thumbs) -> float:
    # Colours alone miss a cut between two rooms of one palette, places alone take a pan for one.
    colours = 0.5 * float(np.abs(_histogram(one) - _histogram(other)).sum())
    places = float(np.abs(one.astype(np.float32) - other).mean()) / 255.0
    return 0.5 * colours + 0.5 * min(1.0, 3.0 * places)


def _histogram(picture: Thumbs) -> NDArray[np.float64]:
    """Shares of the levels of each colour, (3 * levels,), sum 1; a pixel belongs to the two levels
    nearest to it, so that a small change of a plain ground is a small change here."""
    places = picture.reshape(-1, 3) * ((_LEVELS - 1) / 255.0)
    below = np.minimum(places.astype(np.int64), _LEVELS - 2)
    bins = (below + _LEVELS * np.arange(3)).ravel()
    rest = (places - below).ravel()
    size = 3 * _LEVELS
    shares = np.bincount(bins, 1.0 - rest, minlength=size)
    shares += np.bincount(bins + 1, rest, minlength=size)
    return shares / len(bins)


def _look(file: VideoFile, grid: Times, *, limits: Limits) -> tuple[Times, Thumbs]:
    """Pictures on screen at the times of `grid`, each once: times (N,), thumbs (N, h, w, 3)."""

    def shown(timeline: Timeline) -> Times:
        inside = grid[grid < timeline.end_seconds]
        numbers = np.unique(frames_on_screen(inside, timeline.pts_seconds))
        return timeline.pts_seconds[numbers if len(numbers) else [-1]][None, :]

    clip = decode_planned(file, plan=shown, shape=thumb, limits=limits)
    return clip.times_seconds[0], clip.pixels[0]


def _refine(file: VideoFile, before: float, after: float, *, limits: Limits) -> float | None:
    """The time of the one picture in (before, after] that a cut lies before; None: there is none.

    A change that many pictures share is a dissolve or a fast motion.
    """

    def between(timeline: Timeline) -> Times:
        pts = timeline.pts_seconds
        inside = pts[(pts >= before) & (pts <= after)]
        return (inside if len(inside) else pts[-1:])[None, :]

    clip = decode_planned(file, plan=between, shape=thumb, limits=limits)
    change = changes(clip.pixels[0])
    number = int(np.argmax(change))
    others = np.delete(change, number)
    is_one = change[number] >= _LEAST_RATIO * np.max(others, initial=0.0)
    if change[number] < _LEAST_CHANGE or not is_one:
        return None
    return float(clip.times_seconds[0, number])
