"""From segments that were found to hits: ranked, at most so many of a video, behind a last page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.index.change import Scalar
from service.index.video_index import Hit, SegmentHit
from service.index.wish import Wish


@dataclass(frozen=True)
class Candidate:
    """A segment that may be a hit, with the facts of its video."""

    video_id: str
    external_id: str | None
    metadata: Mapping[str, Scalar]
    segment: SegmentHit


def rank(candidates: Iterable[Candidate], wish: Wish) -> Sequence[Hit]:
    """Return up to ``wish.top_k`` hits, best first, equal ones in the order of their ids."""
    grouped: dict[str, list[Candidate]] = {}
    for each in candidates:
        if each.segment.cosine >= wish.min_cosine:
            grouped.setdefault(each.video_id, []).append(each)
    for found in grouped.values():
        found.sort(key=lambda each: (-each.segment.cosine, each.segment.ordinal))
        del found[wish.per_video :]
    hits = (
        [_hit(found) for found in grouped.values()]
        if wish.group_by == "video"
        else [_hit([each]) for found in grouped.values() for each in found]
    )
    hits.sort(key=_place)
    if wish.after is not None:
        ordinal = wish.after.ordinal
        last = (-wish.after.cosine, wish.after.video_id, -1 if ordinal is None else ordinal)
        if wish.group_by == "video":
            hits = [hit for hit in hits if _place(hit)[:2] > last[:2]]
        else:
            hits = [hit for hit in hits if _place(hit) > last]
    return hits[: wish.top_k]


def _hit(found: Sequence[Candidate]) -> Hit:
    best = found[0]
    segments = tuple(each.segment for each in found)
    return Hit(best.video_id, best.external_id, best.metadata, segments)


def _place(hit: Hit) -> tuple[float, str, int]:
    best = hit.segments[0]
    return -best.cosine, hit.video_id, best.ordinal
