"""Windows over a video cover it once, whatever its length."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.options import OptionError
from service.segments import (
    Cutting,
    choose_cutting,
    cut,
    groups,
    growing_groups,
    require_count,
    window_count,
    windows,
)
from service.videoclip.errors import TimeRange

SECONDS = st.floats(0.01, 500, allow_nan=False)


@given(SECONDS, st.floats(0.2, 60))
def test_windows_cover_the_video_without_gap_or_overlap(duration: float, length: float) -> None:
    """They begin at 0, touch each other, end with the video, and none is much longer."""
    spans = cut(duration, length)
    assert spans[0][0] == 0.0
    assert spans[-1][1] == duration
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(0 < end - start <= 1.2501 * length for start, end in spans)


def test_a_short_rest_joins_the_last_window() -> None:
    """10.5 s in windows of 4 s: the rest of 2.5 s stands alone; 8.5 s: the rest joins."""
    assert cut(10.5, 4.0) == [(0.0, 4.0), (4.0, 8.0), (8.0, 10.5)]
    assert cut(8.5, 4.0) == [(0.0, 4.0), (4.0, 8.5)]


def test_a_part_of_a_video_is_cut_from_its_start() -> None:
    """Start and end bound the windows; an end past the video is its end."""
    assert cut(10.0, 2.0, start=5.0, end=99.0) == [(5.0, 7.0), (7.0, 9.0), (9.0, 10.0)]


@pytest.mark.parametrize(("start", "end"), [(10.0, None), (-1.0, None), (5.0, 5.0), (5.0, 1.0)])
def test_a_range_outside_the_video_is_an_error(start: float, end: float | None) -> None:
    """The client is told what is wrong with the times."""
    with pytest.raises(TimeRange):
        cut(10.0, 2.0, start=start, end=end)


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_length_is_refused(length: float) -> None:
    """No infinite number of windows."""
    with pytest.raises(ValueError, match="segment_seconds"):
        cut(10.0, length)


@given(st.lists(st.tuples(SECONDS, SECONDS)), st.integers(1, 10))
def test_groups_keep_order_and_lose_nothing(spans: list[tuple[float, float]], size: int) -> None:
    """All spans come back, at most `size` at a time."""
    parts = list(groups(spans, size=size))
    assert [span for part in parts for span in part] == spans
    assert all(1 <= len(part) <= size for part in parts)


@given(SECONDS, st.floats(0.2, 60), st.floats(0, 0.95))
def test_overlapping_windows_cover_a_part_and_move_on(
    duration: float, length: float, share: float
) -> None:
    """Each begins one step after the one before, all but the last are as long as asked."""
    overlap = share * length
    step = length - overlap
    end = 2.0 + duration
    spans = windows((2.0, end), length, overlap=overlap)
    assert len(spans) == window_count(end - 2.0, length, overlap=overlap)  # not quite `duration`
    assert spans[0][0] == 2.0
    assert spans[-1][1] == 2.0 + duration
    for one, other in itertools.pairwise(spans):
        assert other[0] - one[0] == pytest.approx(step, abs=1e-6)
        assert one[1] - one[0] == pytest.approx(length, abs=1e-6)
        assert other[0] <= one[1] + 1e-6
        assert one[1] < 2.0 + duration + 1e-6
    assert 0 < spans[-1][1] - spans[-1][0] <= length + 0.25 * step + 1e-6


def test_windows_of_a_minute() -> None:
    """Ten seconds long, five apart, the rest of two seconds in the last one."""
    assert windows((0.0, 27.0), 10.0, overlap=5.0) == [
        (0.0, 10.0),
        (5.0, 15.0),
        (10.0, 20.0),
        (15.0, 25.0),
        (20.0, 27.0),
    ]
    assert windows((0.0, 3.0), 10.0, overlap=5.0) == [(0.0, 3.0)]


@pytest.mark.parametrize(("length", "overlap"), [(1.0, 1.0), (1.0, -0.1), (float("inf"), 0.0)])
def test_windows_that_do_not_move_on_are_a_mistake(length: float, overlap: float) -> None:
    """They would never end."""
    with pytest.raises(ValueError, match="overlap"):
        window_count(10.0, length, overlap=overlap)


def test_what_a_request_may_ask_for() -> None:
    """Windows have the default length, shots have none; contradictions name field and limit."""
    choose = choose_cutting
    assert choose("windows", length=None, overlap=None, default_length=4.0) == Cutting(
        "windows", 4.0, 0.0
    )
    assert choose("windows", length=2.0, overlap=1.0, default_length=4.0) == Cutting(
        "windows", 2.0, 1.0
    )
    assert choose("shots", length=None, overlap=None, default_length=4.0) == Cutting("shots", None)
    for mode, length, overlap, limit in (
        ("windows", 2.0, 2.0, 2.0),
        ("windows", None, 5.0, 4.0),
        ("shots", None, 0.0, None),
    ):
        with pytest.raises(OptionError) as caught:
            choose(mode, length=length, overlap=overlap, default_length=4.0)  # type: ignore[arg-type] # a str in the loop
        error = caught.value
        assert (error.code, error.param) == ("invalid_segments", "segments.overlap")
        assert (error.limit, error.actual) == (limit, overlap)


def test_too_many_segments_are_named() -> None:
    """With the limit and how many there would be."""
    require_count(10, limit=10)
    with pytest.raises(OptionError) as caught:
        require_count(11, limit=10)
    assert (caught.value.code, caught.value.limit, caught.value.actual) == (
        "too_many_segments",
        10,
        11,
    )


@given(st.integers(0, 300), st.integers(1, 40))
def test_growing_groups_hold_everything_once(count: int, size: int) -> None:
    """In order, never more than `size`, and the first ones small."""
    found = [list(group) for group in growing_groups(range(count), size=size)]
    assert [item for group in found for item in group] == list(range(count))
    assert all(0 < len(group) <= size for group in found)
    assert not found or len(found[0]) <= 2
