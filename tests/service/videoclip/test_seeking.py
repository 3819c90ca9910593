"""The seek policy: which packets are decoded, and how they are reached."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.seeking import (
    READ_ON_PACKETS,
    Group,
    can_leave_out,
    choose_route,
    groups_of,
    reads_on,
)


def plain_film(count: int, *, gop: int) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and key pictures of a film without B-frames."""
    pts = np.arange(count)
    return pts, pts % gop == 0


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([0], [(0, 0)]),
        ([5], [(0, 5)]),
        ([10], [(10, 10)]),  # a key picture costs one packet
        ([5, 7], [(0, 7)]),  # one group of pictures is decoded once
        ([7, 5, 7], [(0, 7)]),
        ([9, 10], [(0, 9), (10, 10)]),  # the rest of a group is left out where possible
        ([3, 95], [(0, 3), (90, 95)]),
        (range(100), [(start, start + 9) for start in range(0, 100, 10)]),
    ],
)
def test_groups_of_a_film_with_a_key_picture_in_ten(
    wanted: list[int], expected: list[tuple[int, int]]
) -> None:
    """From the key picture before to the wanted one, each packet once."""
    pts, keyframe = plain_film(100, gop=10)
    groups = groups_of(np.array(wanted), pts=pts, keyframe=keyframe)
    assert [(group.first, group.last) for group in groups] == expected


def test_a_picture_shown_before_its_key_picture_needs_the_group_before() -> None:
    """Open GOP: packets 5 and 6 follow the key picture 4 in the file, but are shown before it."""
    pts = np.array([0, 1, 2, 3, 6, 4, 5, 7])
    keyframe = np.array([True, False, False, False, True, False, False, False])
    assert groups_of(np.array([5]), pts=pts, keyframe=keyframe) == [Group(0, 5)]
    assert groups_of(np.array([4]), pts=pts, keyframe=keyframe) == [Group(4, 4)]
    # The group that begins at the key picture joins the one that runs over it.
    assert groups_of(np.array([5, 7]), pts=pts, keyframe=keyframe) == [Group(0, 7)]


def test_without_a_key_picture_decoding_begins_at_the_start() -> None:
    """A stream that was cut begins anywhere."""
    pts = np.arange(5)
    assert groups_of(np.array([3]), pts=pts, keyframe=np.zeros(5, dtype=bool)) == [Group(0, 3)]


@given(data=st.data())
def test_every_wanted_packet_is_in_one_group_that_can_be_decoded(data: st.DataObject) -> None:
    """Groups are apart, ascending, minimal at their end, and begin where decoding can."""
    count = data.draw(st.integers(1, 60))
    order = data.draw(st.permutations(range(count)))
    # A decoder's delay is bounded: stamps are nearly in order.
    pts = np.array(sorted(range(count), key=lambda number: number + order[number] % 4))
    keyframe = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    wanted = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1)))
    groups = groups_of(wanted, pts=pts, keyframe=keyframe)
    for packet in set(wanted.tolist()):
        (group,) = [group for group in groups if group.first <= packet <= group.last]
        assert group.first == 0 or keyframe[group.first]
        assert group.first == 0 or pts[group.first] <= pts[packet]
    assert all(a.last < b.first for a, b in pairwise(groups))
    assert {group.last for group in groups} <= set(wanted.tolist())


def test_short_gaps_are_read_and_long_ones_sought() -> None:
    """Nothing was read yet, or the place is behind: seek."""
    assert reads_on(10, 10)
    assert reads_on(10, 10 + READ_ON_PACKETS)
    assert not reads_on(10, 11 + READ_ON_PACKETS)
    assert not reads_on(10, 9)
    assert not reads_on(None, 0)


def test_routes() -> None:
    """Stamps that do not say when pictures are shown leave only counting."""
    assert choose_route(stamps_trusted=True) == "groups"
    assert choose_route(stamps_trusted=False) == "in order"
    assert can_leave_out("h264")
    assert not any(can_leave_out(codec) for codec in ("vp9", "libdav1d", "mpeg4", "vp8"))
