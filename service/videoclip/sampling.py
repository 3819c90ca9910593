"""Which moments of a video are shown to the network: pure functions on presentation times.

All times are seconds since the first picture of the video. An interval is half open: it holds its
start, not its end. Nothing here knows frame rates or counts of a header; a video is described by
the presentation times of its pictures.
"""

from __future__ import annotations

import math

import numpy as np

from service.videoclip.errors import TimeRange
from service.videoclip.manifest import Sampling
from service.videoclip.timeline import Timeline as Timeline
from service.videoclip.timeline import Times as Times
from service.videoclip.timeline import frames_on_screen as frames_on_screen

# Rounding noise of products such as 16/30 * 7 * 30, which must not become another frame.
_EPSILON = 1e-6


def uniform_times(start_seconds: float, end_seconds: float, *, frames: int) -> Times:
    """The middles of `frames` equal parts of [start, end).

    Returns:
        float64 (frames,), ascending, each in [start, end).

    Raises:
        ValueError: `frames` < 1, or not start < end.
    """
    _require_interval(start_seconds, end_seconds, frames=frames)
    return segment_times(start_seconds, end_seconds, shares=np.full(frames, 0.5))


def segment_times(start_seconds: float, end_seconds: float, *, shares: Times) -> Times:
    """One time in each of equal parts of [start, end): the training clips of ViFi-CLIP, FitCLIP
    and Text4Vis, if `shares` are random.

    Args:
        start_seconds: where the sampled part begins.
        end_seconds: where it ends.
        shares: float64 (frames,), in [0, 1): where in its part each time lies.

    Returns:
        float64 (frames,), ascending, each in [start, end).

    Raises:
        ValueError: `shares` is empty, or not start < end.
    """
    frames = len(shares)
    _require_interval(start_seconds, end_seconds, frames=frames)
    places = (np.arange(frames, dtype=np.float64) + shares) / frames
    return _inside(start_seconds + places * (end_seconds - start_seconds),
                   start_seconds, end_seconds)  # fmt: skip


def segment_start_times(
    start_seconds: float, end_seconds: float, *, frames: int, timeline: Timeline
) -> Times:
    """The first picture of each of `frames` equal parts of those that lie in [start, end).

    Text4Vis's test clips as coded: of N pictures, those numbered ``int(k * N / frames)``. With
    fewer pictures than asked, some are repeated; with none in the interval, the one before it is
    taken.

    Returns:
        float64 (frames,), ascending; presentation times of pictures.
    """
    _require_interval(start_seconds, end_seconds, frames=frames)
    pts = timeline.pts_seconds
    inside = pts[(pts >= start_seconds) & (pts < end_seconds)]
    if len(inside) == 0:
        inside = pts[pts < start_seconds][-1:]
    result: Times = inside[np.arange(frames) * len(inside) // frames]
    return result


def strided_times(
    start_seconds: float,
    end_seconds: float,
    *,
    frames: int,
    stride_seconds: float,
    views: int,
    frame_seconds: float,
) -> Times:
    """Clips of `frames` pictures about `stride_seconds` apart, `views` of them over [start, end).

    Reproduces Open-VCLIP's test clips as coded (SlowFast's PyAV path), where a stride of 16 frames
    at 30 fps is `stride_seconds` = 16/30. With fps = 1 / `frame_seconds`, a clip reaches over
    ``ceil(stride * (frames - 1) * fps)`` pictures; clip v of V begins at ``slack * v / V``; inside
    it pictures are taken at ``linspace(0, stride * frames * fps - 1, frames)``, rounded down, not
    past the end of the clip or of the video. So the step is a little more than the stride, the
    last step is shorter, and a short video repeats its last picture.

    Args:
        start_seconds: where the sampled part begins.
        end_seconds: where it ends.
        frames: pictures in a clip.
        stride_seconds: nominal distance of two pictures.
        views: number of clips.
        frame_seconds: time for which one picture is on screen (`Timeline.frame_seconds`).

    Returns:
        float64 (views, frames), rows ascending, in [start, end); each is the middle of the time
        for which a picture of a constant-rate video is shown.

    Raises:
        ValueError: not start < end, or another argument is not above 0.
    """
    if views < 1:
        raise ValueError(f"views: {views} is below 1")
    return strided_times_at(
        start_seconds,
        end_seconds,
        frames=frames,
        stride_seconds=stride_seconds,
        positions=np.arange(views, dtype=np.float64) / views,
        frame_seconds=frame_seconds,
    )


def strided_times_at(
    start_seconds: float,
    end_seconds: float,
    *,
    frames: int,
    stride_seconds: float,
    positions: Times,
    frame_seconds: float,
    exact: bool = False,
) -> Times:
    """Clips as `strided_times` makes them, beginning at chosen `positions`.

    Args:
        start_seconds: where the sampled part begins.
        end_seconds: where it ends.
        frames: pictures in a clip.
        stride_seconds: nominal distance of two pictures.
        positions: float64 (views,), in [0, 1]: shares of the slack, which is what a clip leaves
            over of [start, end). One random number is Open-VCLIP's training clip.
        frame_seconds: time for which one picture is on screen.
        exact: pictures `stride_seconds` apart, all of them, as the paper says; not as coded.

    Returns:
        float64 (views, frames), rows ascending, in [start, end).

    Raises:
        ValueError: not start < end, or another argument is not above 0.
    """
    _require_interval(start_seconds, end_seconds, frames=frames)
    if not (math.isfinite(stride_seconds) and stride_seconds > 0):
        raise ValueError(f"stride_seconds: {stride_seconds} is not above 0")
    if not (math.isfinite(frame_seconds) and frame_seconds > 0):
        raise ValueError(f"frame_seconds: {frame_seconds} is not above 0")
    fps = 1.0 / frame_seconds
    total = max(1, round((end_seconds - start_seconds) * fps))
    window = math.ceil(stride_seconds * (frames - 1) * fps - _EPSILON)
    slack = max(total - window, 0)
    span = max(stride_seconds * frames * fps - 1.0, 0.0)
    places = np.linspace(0.0, span, frames)
    if exact:
        places = stride_seconds * fps * np.arange(frames, dtype=np.float64)
    steps = np.floor(places + _EPSILON)
    first = np.floor(slack * positions + _EPSILON)
    # One picture more than the window is decoded, so its last index is `window` itself.
    indices = first[:, None] + np.minimum(steps, window)[None, :]
    indices = np.minimum(indices, total - 1)
    return _inside(start_seconds + (indices + 0.5) * frame_seconds, start_seconds, end_seconds)


def keyframe_times(
    start_seconds: float, end_seconds: float, *, frames: int, timeline: Timeline
) -> Times:
    """`frames` key pictures, spread evenly over those that lie in [start, end).

    With fewer key pictures than asked, some are repeated; with none in the interval, the one
    before it is taken (the first picture of a video counts as one).

    Returns:
        float64 (frames,), ascending; presentation times of key pictures.
    """
    _require_interval(start_seconds, end_seconds, frames=frames)
    keys = timeline.pts_seconds[timeline.keyframe]
    inside = keys[(keys >= start_seconds) & (keys < end_seconds)]
    if len(inside) == 0:
        before = keys[keys < start_seconds]
        inside = before[-1:] if len(before) else timeline.pts_seconds[:1]
    chosen = ((np.arange(frames) + 0.5) / frames * len(inside)).astype(np.int64)
    result: Times = inside[chosen]
    return result


def plan(
    sampling: Sampling,
    timeline: Timeline,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Times:
    """The times at which `sampling` looks at [start, end) of a video.

    Args:
        sampling: the manifest's, or a request's.
        timeline: of the video.
        start: seconds; the beginning of the video if None.
        end: seconds; the end of the video if None or if it lies after it.

    Returns:
        float64 (views, frames).

    Raises:
        TimeRange: `start` is not in the video, `end` is not after `start`, or an explicit time
            is not in [start, end).
    """
    begin, stop = _range(timeline, start=start, end=end)
    if sampling.mode == "uniform":
        return uniform_times(begin, stop, frames=sampling.frames)[None, :]
    if sampling.mode == "segment_starts":
        return segment_start_times(begin, stop, frames=sampling.frames, timeline=timeline)[None, :]
    if sampling.mode == "strided":
        assert sampling.stride_seconds is not None  # noqa: S101 - checked by Sampling
        return strided_times(
            begin,
            stop,
            frames=sampling.frames,
            stride_seconds=sampling.stride_seconds,
            views=sampling.views,
            frame_seconds=timeline.frame_seconds,
        )
    if sampling.mode == "keyframes":
        return keyframe_times(begin, stop, frames=sampling.frames, timeline=timeline)[None, :]
    assert sampling.times_seconds is not None  # noqa: S101 - checked by Sampling
    times = np.asarray(sampling.times_seconds, dtype=np.float64)
    outside = times[(times < begin) | (times >= stop)]
    if len(outside):
        raise TimeRange(
            f"times_seconds: {float(outside[0]):g} s is not in [{begin:g}, {stop:g}) s",
            limit=stop,
            actual=float(outside[0]),
        )
    return times[None, :]


def _range(timeline: Timeline, *, start: float | None, end: float | None) -> tuple[float, float]:
    duration = timeline.end_seconds
    begin = 0.0 if start is None else float(start)
    stop = duration if end is None else float(end)
    if not (math.isfinite(begin) and 0 <= begin < duration):
        raise TimeRange(
            f"start: {begin:g} s is not in the video, which lasts {duration:.3f} s",
            limit=duration,
            actual=begin,
        )
    if math.isnan(stop) or stop <= begin:
        raise TimeRange(
            f"end: {stop:g} s is not after start, {begin:g} s", limit=begin, actual=stop
        )
    return begin, min(stop, duration)


def _require_interval(start_seconds: float, end_seconds: float, *, frames: int) -> None:
    if frames < 1:
        raise ValueError(f"frames: {frames} is below 1")
    if not (math.isfinite(start_seconds) and math.isfinite(end_seconds)):
        raise ValueError(f"start and end: {start_seconds}, {end_seconds} are not finite")
    if not start_seconds < end_seconds:
        raise ValueError(f"end_seconds: {end_seconds} is not after start, {start_seconds}")


def _inside(times: Times, start_seconds: float, end_seconds: float) -> Times:
    """Undo the rounding that can push a time out of [start, end)."""
    last = math.nextafter(end_seconds, -math.inf)
    result: Times = np.clip(times, start_seconds, last)
    return result
