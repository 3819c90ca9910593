"""Windows over a video cover it once, whatever its length."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.segments import cut, groups
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
