"""Neighbours that keep the same labels become one segment."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.results import TaggedSegment
from service.tags import Tag
from service.timeline_merging import join, merged
from service.videoclip.errors import VideoWarning


def segment(
    start: float, end: float, scores: dict[str, float], *, warning: str | None = None
) -> TaggedSegment:
    """A segment whose logits are ten times, cosines half of its scores."""
    tags = [Tag(name, None, score, 10 * score, score / 2) for name, score in scores.items()]
    return TaggedSegment(
        start=start,
        end=end,
        tags=tuple(sorted(tags, key=lambda tag: -tag.score)),
        none_score=None,
        warnings=() if warning is None else (VideoWarning(warning, "once"),),
        encoded_frames=3,
    )


async def _stream(segments: Sequence[TaggedSegment]) -> AsyncGenerator[TaggedSegment, None]:
    for each in segments:
        yield each


async def _merged(segments: Sequence[TaggedSegment]) -> list[TaggedSegment]:
    return [each async for each in merged(_stream(segments))]


@pytest.mark.anyio
async def test_equal_neighbours_are_joined_and_others_are_not() -> None:
    """The order of tags does not matter, an empty segment is like another empty one."""
    found = await _merged(
        [
            segment(0, 1, {"a": 0.6, "b": 0.4}),
            segment(1, 2, {"a": 0.4, "b": 0.6}),
            segment(2, 3, {"a": 0.9}),
            segment(3, 4, {}),
            segment(4, 6, {}),
            segment(6, 7, {"a": 0.9}),
        ]
    )
    assert [(s.start, s.end, s.merged) for s in found] == [
        (0, 2, 2),
        (2, 3, 1),
        (3, 6, 2),
        (6, 7, 1),
    ]
    assert [tag.score for tag in found[0].tags] == pytest.approx([0.5, 0.5])


def test_a_long_segment_weighs_more() -> None:
    """Means by duration of score, logit and cosine; warnings once; frames add up."""
    one = join(
        [
            segment(0, 1, {"a": 0.9}, warning="damaged_stream"),
            segment(1, 4, {"a": 0.5}, warning="damaged_stream"),
        ]
    )
    (tag,) = one.tags
    assert (tag.score, tag.logit, tag.cosine) == pytest.approx((0.6, 6.0, 0.3))
    assert len(one.warnings) == 1
    assert one.encoded_frames == 6
    single = segment(0, 1, {"a": 1.0})
    assert join([single]) is single


@given(st.lists(st.sampled_from(["", "a", "b", "ab"]), min_size=1, max_size=30))
def test_merging_keeps_the_time_and_the_number_of_segments(names: list[str]) -> None:
    """Nothing is lost, and no two neighbours of the result keep the same labels."""
    given_segments = [
        segment(number, number + 1, dict.fromkeys(name, 0.5)) for number, name in enumerate(names)
    ]
    found = asyncio.run(_merged(given_segments))
    assert sum(s.merged for s in found) == len(names)
    assert [s.start for s in found[1:]] == [s.end for s in found[:-1]]
    assert (found[0].start, found[-1].end) == (0, len(names))
    labels = [frozenset(tag.label for tag in s.tags) for s in found]
    assert all(a != b for a, b in itertools.pairwise(labels))


@pytest.mark.anyio
async def test_closing_the_result_closes_the_source() -> None:
    """A client that left must not leave work behind."""
    closed = False

    async def source() -> AsyncGenerator[TaggedSegment, None]:
        nonlocal closed
        try:
            for number in range(100):
                yield segment(number, number + 1, {str(number): 1.0})
        finally:
            closed = True

    stream = merged(source())
    await anext(stream)
    await stream.aclose()
    assert closed
