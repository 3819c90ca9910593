"""deploy/CAPACITY.md: written from the unit costs, by arithmetic that holds at any size."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.capacity import PAGE, UNIT_COSTS, Point, grown, needs, page, read_unit_costs


def test_the_page_is_what_the_script_writes() -> None:
    """Whoever changes a cost writes the page anew: `make capacity`."""
    tables = tomllib.loads(UNIT_COSTS.read_text())
    assert PAGE.read_text() == page(read_unit_costs(), tables)


@given(st.integers(10**4, 10**10), st.integers(2, 1000))
def test_more_segments_never_need_less(segments: int, times: int) -> None:
    """Hours, bytes and machines grow with segments; work that is linear grows as they do."""
    costs = read_unit_costs()
    small, large = needs(segments, costs), needs(segments * times, costs)
    assert large.hours["encode"] == pytest.approx(small.hours["encode"] * times)
    assert large.hours["graph"] >= small.hours["graph"] * times * 0.999
    assert large.video_bytes == pytest.approx(small.video_bytes * times)
    assert large.cluster_machines >= small.cluster_machines >= 1
    assert large.indexing_machines >= small.indexing_machines >= 1
    assert large.postgres_search_cores >= small.postgres_search_cores
    assert large.cluster_search_cores >= small.cluster_search_cores


def test_a_cost_that_was_measured_twice_meets_both() -> None:
    """And half the way, in the logarithm, is the mean."""
    points = (Point(100, 2.0), Point(10_000, 4.0))
    assert [grown(points, size) for size in (100, 1000, 10_000)] == pytest.approx([2.0, 3.0, 4.0])
    assert grown(points, 1) == 2.0
