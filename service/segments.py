"""Windows over a video, and what a request may ask for instead; pure functions."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from service.options import OptionError
from service.videoclip.errors import TimeRange

_SHORT_SHARE: Final = 0.25
"""A last window that adds less than this share of a step joins the one before it."""

_FIRST_GROUP: Final = 2

T = TypeVar("T")
Span = tuple[float, float]


@dataclass(frozen=True)
class Cutting:
    """How a video is cut into segments.

    Attributes:
        mode: windows of equal length, or shots.
        length: seconds of a window; the most of a shot, None: no limit.
        overlap: seconds that a window shares with the one before it, below `length`.
    """

    mode: Literal["windows", "shots"]
    length: float | None
    overlap: float = 0.0


def choose_cutting(
    mode: Literal["windows", "shots"],
    *,
    length: float | None,
    overlap: float | None,
    default_length: float,
) -> Cutting:
    """Return how a request wants a video to be cut.

    Raises:
        OptionError: windows that would not move on, or an overlap of shots.
    """
    if mode == "shots":
        if overlap is not None:
            raise OptionError(
                "invalid_segments",
                "Shots do not overlap; leave segments.overlap out.",
                param="segments.overlap",
                limit=None,
                actual=overlap,
            )
        return Cutting("shots", length)
    chosen = default_length if length is None else length
    if overlap is not None and overlap >= chosen:
        raise OptionError(
            "invalid_segments",
            f"segments.overlap, {overlap:g} s, is not below segments.length, {chosen:g} s.",
            param="segments.overlap",
            limit=chosen,
            actual=overlap,
        )
    return Cutting("windows", chosen, overlap or 0.0)


def require_count(count: int, *, limit: int) -> None:
    """Refuse more segments than are allowed.

    Raises:
        OptionError: ``too_many_segments``.
    """
    if count > limit:
        raise OptionError(
            "too_many_segments",
            f"The video has {count} segments or more, at most {limit} are made; choose longer"
            " ones, or a part of the video.",
            param="segments",
            limit=limit,
            actual=count,
        )


def part(duration_seconds: float, *, start: float | None = None, end: float | None = None) -> Span:
    """Return the asked part [start, end) of a video.

    Args:
        duration_seconds: of the video, above 0.
        start: of the part; None: 0.
        end: of the part; None or past the end: the end of the video.

    Raises:
        TimeRange: `start` is not in the video, or `end` is not after it.
    """
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
    return first, last


def window_count(seconds: float, length: float, *, overlap: float = 0.0) -> int:
    """Return how many windows `windows` makes of a part that lasts `seconds`.

    Raises:
        ValueError: not 0 <= `overlap` < `length`, or `length` is not finite.
    """
    if not (math.isfinite(length) and 0.0 <= overlap < length):
        raise ValueError(f"length {length}, overlap {overlap}: not 0 <= overlap < length")
    return max(1, 1 + math.ceil((seconds - length) / (length - overlap) - _SHORT_SHARE))


def windows(span: Span, length: float, *, overlap: float = 0.0) -> list[Span]:
    """Return windows of `length` seconds over `span`, each beginning `length - overlap` later.

    They cover `span`. The last one ends with it, so it may be shorter, or up to a quarter of a
    step longer.

    Raises:
        ValueError: as `window_count`.
    """
    first, last = span
    count = window_count(last - first, length, overlap=overlap)
    starts = [first + number * (length - overlap) for number in range(count)]
    return [*((start, start + length) for start in starts[:-1]), (starts[-1], last)]


def cut(
    duration_seconds: float,
    segment_seconds: float,
    *,
    start: float | None = None,
    end: float | None = None,
) -> list[Span]:
    """Return windows of `segment_seconds` that touch and cover the asked part of a video.

    Raises:
        TimeRange, ValueError: as `part` and `windows`.
    """
    if not (math.isfinite(segment_seconds) and segment_seconds > 0):
        raise ValueError(f"segment_seconds: {segment_seconds} is not above 0")
    spans = windows(part(duration_seconds, start=start, end=end), segment_seconds)
    # Each ends exactly where the next begins, whatever rounding makes of start + length.
    edges = [begin for begin, _ in spans] + [spans[-1][1]]
    return list(itertools.pairwise(edges))


def groups(spans: Sequence[T], *, size: int) -> Iterator[Sequence[T]]:
    """Yield `spans` in order, at most `size` at a time."""
    for position in range(0, len(spans), size):
        yield spans[position : position + size]


def growing_groups(spans: Sequence[T], *, size: int) -> Iterator[Sequence[T]]:
    """Yield `spans` in order, a few at first, soon `size` at a time: the first comes early."""
    position, count = 0, min(_FIRST_GROUP, size)
    while position < len(spans):
        yield spans[position : position + count]
        position, count = position + count, min(2 * count, size)
