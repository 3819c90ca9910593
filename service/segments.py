"""Fixed windows over a video; pure functions."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from service.videoclip.errors import TimeRange

_SHORT_SHARE: Final = 0.25
"""A last window shorter than this share of a window joins the one before it."""

Span = tuple[float, float]


def cut(
    duration_seconds: float,
    segment_seconds: float,
    *,
    start: float | None = None,
    end: float | None = None,
) -> list[Span]:
    """Return windows [start, end) of `segment_seconds` that cover the asked part of a video.

    They touch, they do not overlap, and the last one may be shorter, or up to a quarter longer.

    Args:
        duration_seconds: of the video, above 0.
        segment_seconds: of a window, above 0.
        start: of the part; None: 0.
        end: of the part; None or past the end: the end of the video.

    Raises:
        TimeRange: `start` is not in the video, or `end` is not after it.
        ValueError: `segment_seconds` is not above 0.
    """
    if not (math.isfinite(segment_seconds) and segment_seconds > 0):
        raise ValueError(f"segment_seconds: {segment_seconds} is not above 0")
    first = 0.0 if start is None else start
    last = duration_seconds if end is None else min(end, duration_seconds)
    if not 0.0 <= first < duration_seconds:
        raise TimeRange(
            f"start: {first:g} s is not in the video, which lasts {duration_seconds:.3f} s",
            limit=duration_seconds,
            actual=first,
        )
    if not last > first:
        raise TimeRange(
            f"end: {last:g} s is not after start, {first:g} s", limit=first, actual=last
        )
    count = max(1, math.ceil((last - first) / segment_seconds - _SHORT_SHARE))
    edges = [first + number * segment_seconds for number in range(count)] + [last]
    return list(itertools.pairwise(edges))


def groups(spans: Sequence[Span], *, size: int) -> Iterator[Sequence[Span]]:
    """Yield `spans` in order, at most `size` at a time."""
    for position in range(0, len(spans), size):
        yield spans[position : position + size]
