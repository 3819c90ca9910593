"""Hits of segments that were found: the best of each video, in one order, on page after page."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.index.ranking import Candidate, rank
from service.index.video_index import Hit, SegmentHit
from service.index.wish import After, Wish

_COSINES = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])
_FOUND = st.dictionaries(st.tuples(st.sampled_from("abcde"), st.integers(0, 4)), _COSINES)


def _candidates(found: dict[tuple[str, int], float]) -> list[Candidate]:
    return [
        Candidate(video_id, None, {}, SegmentHit(float(n), n + 1.0, cosine, n))
        for (video_id, n), cosine in found.items()
    ]


@given(found=_FOUND, per_video=st.integers(1, 3), least=_COSINES)
def test_segments_are_in_one_order(
    found: dict[tuple[str, int], float], per_video: int, least: float
) -> None:
    """By cosine, then id, then time; at most so many of a video, none below the least."""
    hits = rank(_candidates(found), Wish(100, "segment", per_video, min_cosine=least))
    keys = [(-hit.segments[0].cosine, hit.video_id, hit.segments[0].ordinal) for hit in hits]
    assert keys == sorted(keys)
    for video_id in "abcde":
        own = sorted((-c, n) for (name, n), c in found.items() if name == video_id and c >= least)
        assert [key[0::2] for key in keys if key[1] == video_id] == own[:per_video]


@given(found=_FOUND, per_video=st.integers(1, 3), by_video=st.booleans())
def test_pages_are_one_long_answer(
    found: dict[tuple[str, int], float], per_video: int, by_video: bool
) -> None:
    """Each hit once, equal cosines included; a video has the segments it has on one page."""
    wish = Wish(100, "video" if by_video else "segment", per_video)
    whole = list(rank(_candidates(found), wish))
    pages: list[Hit] = []
    while page := rank(_candidates(found), replace(wish, top_k=2, after=_after(pages, by_video))):
        pages += page
    assert pages == whole


def _after(hits: list[Hit], by_video: bool) -> After | None:
    if not hits:
        return None
    best = hits[-1].segments[0]
    return After(best.cosine, hits[-1].video_id, None if by_video else best.ordinal, len(hits))
