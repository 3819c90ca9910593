"""Sampling arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.errors import TimeRange
from service.videoclip.manifest import Sampling
from service.videoclip.sampling import (
    Timeline,
    frames_on_screen,
    keyframe_times,
    plan,
    strided_times,
    uniform_times,
)

OPEN_VCLIP_STRIDE_SECONDS = 16 / 30

seconds = st.floats(0, 1e5)
lengths = st.floats(1e-6, 1e5)
counts = st.integers(1, 64)


def constant_rate(count: int, *, fps: float, every: int = 1) -> Timeline:
    """A video of `count` pictures with a key picture at every `every`-th."""
    return Timeline(
        pts_seconds=np.arange(count) / fps,
        end_seconds=count / fps,
        keyframe=np.arange(count) % every == 0,
    )


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Any video: variable rate, equal time stamps, key pictures anywhere."""
    steps = draw(st.lists(st.floats(0, 10), max_size=50))
    pts = np.concatenate([[0.0], np.cumsum(steps)])
    keys = draw(st.lists(st.booleans(), min_size=len(pts), max_size=len(pts)))
    end = max(float(pts[-1]) + draw(st.floats(1e-3, 10)), math.nextafter(pts[-1], math.inf))
    return Timeline(pts_seconds=pts, end_seconds=end, keyframe=np.array(keys))


@given(start=seconds, length=lengths, frames=counts)
def test_uniform_times_lie_in_the_half_open_interval(
    start: float, length: float, frames: int
) -> None:
    """Ascending, as many as asked, the start included, the end not."""
    times = uniform_times(start, start + length, frames=frames)
    assert times.shape == (frames,)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= start) & (times < start + length))


@given(length=lengths, frames=counts)
def test_uniform_times_are_middles(length: float, frames: int) -> None:
    """t_i = (i + 1/2) / frames of the length; symmetric about the middle."""
    times = uniform_times(0, length, frames=frames)
    np.testing.assert_allclose(times, (np.arange(frames) + 0.5) / frames * length, rtol=1e-12)
    np.testing.assert_allclose(times + times[::-1], length, rtol=1e-9)


@given(start=st.floats(0, 1e12), frames=counts)
def test_uniform_times_survive_the_shortest_interval(start: float, frames: int) -> None:
    """Even an interval of one rounding step holds all its times."""
    end = math.nextafter(start, math.inf)
    assert np.all(uniform_times(start, end, frames=frames) == start)


FIRST_300 = [0, 18, 36, 54, 72, 90, 108, 112]
FIRST_250 = [0, 15, 30, 45, 60, 75, 90, 94]


@pytest.mark.parametrize(
    ("count", "fps", "expected"),
    [
        (300, 30, [[start + step for step in FIRST_300] for start in (0, 62, 125)]),
        (250, 25, [[start + step for step in FIRST_250] for start in (0, 52, 104)]),
        (60, 30, [[0, 18, 36, 54, 59, 59, 59, 59]] * 3),
    ],
)
def test_strided_times_show_open_vclips_pictures(
    count: int, fps: float, expected: list[list[int]]
) -> None:
    """The index lists of the authors' code, for constant-rate videos (recipe, frame sampling)."""
    timeline = constant_rate(count, fps=fps)
    sampling = Sampling(mode="strided", frames=8, views=3, stride_seconds=OPEN_VCLIP_STRIDE_SECONDS)
    times = plan(sampling, timeline)
    assert frames_on_screen(times, timeline.pts_seconds).tolist() == expected


def test_strided_times_survive_rounded_time_stamps() -> None:
    """Matroska rounds to milliseconds; the same pictures are chosen."""
    exact = constant_rate(300, fps=30)
    rounded = Timeline(
        pts_seconds=np.round(exact.pts_seconds, 3),
        end_seconds=round(exact.end_seconds, 3),
        keyframe=exact.keyframe,
    )
    sampling = Sampling(mode="strided", frames=8, views=3, stride_seconds=OPEN_VCLIP_STRIDE_SECONDS)
    np.testing.assert_array_equal(
        frames_on_screen(plan(sampling, exact), exact.pts_seconds),
        frames_on_screen(plan(sampling, rounded), rounded.pts_seconds),
    )


@given(
    start=st.floats(0, 1e4),
    length=st.floats(1e-3, 1e4),
    frames=counts,
    stride=st.floats(1e-3, 100),
    views=st.integers(1, 10),
    frame_seconds=st.floats(1e-3, 10),
)
def test_strided_times_lie_in_the_interval(
    start: float, length: float, frames: int, stride: float, views: int, frame_seconds: float
) -> None:
    """Every clip ascends inside [start, end); later views never begin earlier."""
    times = strided_times(
        start,
        start + length,
        frames=frames,
        stride_seconds=stride,
        views=views,
        frame_seconds=frame_seconds,
    )
    assert times.shape == (views, frames)
    assert np.all((times >= start) & (times < start + length))
    assert np.all(np.diff(times, axis=1) >= 0)
    assert np.all(np.diff(times[:, 0]) >= 0)


@given(
    times=st.lists(st.floats(-10, 600), min_size=1, max_size=20),
    timeline=timelines(),
)
def test_the_picture_on_screen_is_the_last_before(times: list[float], timeline: Timeline) -> None:
    """Agrees with the definition, written out; before the first picture it is the first."""
    pts = timeline.pts_seconds
    chosen = frames_on_screen(np.array(times), pts)
    for time, index in zip(times, chosen, strict=True):
        shown = [number for number, stamp in enumerate(pts) if stamp <= time]
        assert index == (shown[-1] if shown else 0)


def test_frames_on_screen_keeps_the_shape() -> None:
    """(views, frames) times give (views, frames) indices."""
    indices = frames_on_screen(np.zeros((3, 8)), np.array([0.0, 1.0]))
    assert indices.shape == (3, 8)
    assert indices.dtype == np.int64
    with pytest.raises(ValueError, match="no picture"):
        frames_on_screen(np.zeros(2), np.array([]))


@given(timeline=timelines(), frames=counts, data=st.data())
def test_keyframe_times_are_key_pictures(
    timeline: Timeline, frames: int, data: st.DataObject
) -> None:
    """In the interval if it has any; all different if it has enough."""
    start = data.draw(st.floats(0, timeline.end_seconds * 0.99))
    end = data.draw(st.floats(start + 1e-9, timeline.end_seconds + 1e-6))
    times = keyframe_times(start, end, frames=frames, timeline=timeline)
    keys = timeline.pts_seconds[timeline.keyframe]
    inside = {float(key) for key in keys if start <= key < end}
    assert times.shape == (frames,)
    assert np.all(np.diff(times) >= 0)
    if inside:
        assert set(times.tolist()) <= inside
        assert len(set(times.tolist())) == min(frames, len(inside))
    else:
        assert len(set(times.tolist())) == 1


@given(
    timeline=timelines(),
    frames=st.integers(1, 16),
    mode=st.sampled_from(["uniform", "strided", "keyframes"]),
    data=st.data(),
)
def test_a_plan_never_looks_past_the_end(
    timeline: Timeline, frames: int, mode: str, data: st.DataObject
) -> None:
    """Whatever the video is, planned times have the right shape and lie before `end`."""
    strided = mode == "strided"
    sampling = Sampling(
        mode=mode,  # type: ignore[arg-type]
        frames=frames,
        views=3 if strided else 1,
        stride_seconds=0.5 if strided else None,
    )
    start = data.draw(st.floats(0, timeline.end_seconds * 0.9))
    end = data.draw(st.floats(start, timeline.end_seconds * 2).filter(lambda end: end > start))
    times = plan(sampling, timeline, start=start, end=end)
    assert times.shape == (sampling.views, frames)
    assert np.all(times < min(end, timeline.end_seconds))
    if mode != "keyframes":
        assert np.all(times >= start)


def test_a_plan_without_bounds_takes_the_whole_video() -> None:
    """None means the beginning and the end; an end past the video means its end."""
    timeline = constant_rate(100, fps=10)
    sampling = Sampling(frames=4)
    expected = np.array([[1.25, 3.75, 6.25, 8.75]])
    np.testing.assert_allclose(plan(sampling, timeline), expected)
    np.testing.assert_allclose(plan(sampling, timeline, start=0, end=1e9), expected)
    np.testing.assert_allclose(plan(sampling, timeline, start=0, end=math.inf), expected)


@pytest.mark.parametrize(
    ("start", "end", "match"),
    [
        (10.0, None, "start: 10 s is not in the video, which lasts 10.000 s"),
        (-0.1, None, "start: -0.1 s is not in the video"),
        (math.nan, None, "start: nan s is not in the video"),
        (math.inf, None, "start: inf s is not in the video"),
        (5.0, 5.0, "end: 5 s is not after start, 5 s"),
        (5.0, 4.0, "end: 4 s is not after start"),
        (None, math.nan, "end: nan s is not after start"),
        (None, -1.0, "end: -1 s is not after start"),
    ],
)
def test_a_range_that_is_not_in_the_video_is_refused(
    start: float | None, end: float | None, match: str
) -> None:
    """The error names the field, the value and what it is compared with."""
    with pytest.raises(TimeRange, match=match):
        plan(Sampling(frames=4), constant_rate(100, fps=10), start=start, end=end)


def test_explicit_times_are_taken_as_they_are() -> None:
    """In the order given, repeats included; one outside of the part is refused."""
    timeline = constant_rate(100, fps=10)
    sampling = Sampling(mode="explicit", frames=3, times_seconds=(7.05, 0.0, 7.05))
    assert plan(sampling, timeline).tolist() == [[7.05, 0.0, 7.05]]
    with pytest.raises(TimeRange, match=r"7.05 s is not in \[0, 5\) s"):
        plan(sampling, timeline, end=5.0)
    late = Sampling(mode="explicit", frames=1, times_seconds=(10.0,))
    with pytest.raises(TimeRange):
        plan(late, timeline)


@pytest.mark.parametrize(
    ("pts", "end", "keys"),
    [
        ([], 1.0, 0),
        ([0.5, 1.0], 2.0, 2),
        ([0.0, 2.0, 1.0], 3.0, 3),
        ([0.0, 1.0], 1.0, 2),
        ([0.0, 1.0], 2.0, 3),
    ],
)
def test_a_timeline_must_make_sense(pts: list[float], end: float, keys: int) -> None:
    """Empty, not from 0, not ascending, ended too early, wrong count of flags: all refused."""
    with pytest.raises(ValueError, match="timeline:"):
        Timeline(np.array(pts), end, np.ones(keys, dtype=bool))


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [(0, 0, 1), (1, 0, 1), (0, math.nan, 1), (0, 1, 0), (0, math.inf, 1)],
)
def test_uniform_times_refuse_what_is_no_interval(start: float, end: float, frames: int) -> None:
    """Empty, reversed, infinite or without a frame."""
    with pytest.raises(ValueError, match=r"start|end|frames"):
        uniform_times(start, end, frames=frames)


@pytest.mark.parametrize(
    ("stride", "views", "frame_seconds"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (math.nan, 1, 1)]
)
def test_strided_times_refuse_nonsense(stride: float, views: int, frame_seconds: float) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError, match=r"stride_seconds|views|frame_seconds"):
        strided_times(
            0, 1, frames=8, stride_seconds=stride, views=views, frame_seconds=frame_seconds
        )


def test_a_single_picture_can_be_sampled() -> None:
    """All frames of every mode are that picture."""
    timeline = constant_rate(1, fps=1)
    for sampling in (
        Sampling(frames=8),
        Sampling(mode="keyframes", frames=8),
        Sampling(mode="strided", frames=8, views=3, stride_seconds=0.5),
    ):
        chosen = frames_on_screen(plan(sampling, timeline), timeline.pts_seconds)
        assert np.all(chosen == 0)
