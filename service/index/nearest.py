"""The nearest neighbours in one place: all compared while they are few, through a graph beyond.

Vectors have unit length, so the inner product is the cosine (pgvector's ``<#>`` is its negative).
The graph holds vectors of half precision and proposes candidates; what is answered was computed
from the stored float32 vectors, and is in the order of those cosines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import numpy as np

from service.index import nearest_sql
from service.index.filter import Filter
from service.index.place import Place
from service.index.video_index import Hit, SegmentHit, Vector
from service.index.wish import Wish

_LEAST: Final = 50  # candidates
_FILTERED: Final = 2  # times the effort, since most nodes are gone by; and, of that, ...
_FILTERED_SHARE: Final = 8  # ... this part as candidates: with fewer recall suffers under filters
_MARGIN: Final = 4  # candidates per wanted segment at first
_EFFORT: Final = 105  # nodes in hand for a graph of ...
_EFFORT_SEGMENTS: Final = 100_000  # ... so many segments; beyond them more, as the square root
_SHARE: Final = 4  # candidates beyond this part of a place: ranking all is no more work
_FILTERED_SEGMENTS: Final = 200_000  # of a place where a filter may leave as many as are compared
_HALF_STEP: Final = 2e-3  # cosines of half precision are nearer than this to the exact ones


async def embeddings(
    connection: Any, video_ids: Sequence[str], *, key: tuple[str, str, Decimal]
) -> Mapping[str, Vector]:
    """Return video id -> float32 (segments, D), in order of time; ``key`` names the space."""
    rows = await connection.fetch(
        "SELECT video_id, embedding FROM segments WHERE video_id = ANY($1::text[]) AND space_id ="
        " (SELECT id FROM spaces WHERE (name, revision, clip_weight) = ($2::text, $3::text, $4))"
        " ORDER BY video_id, ordinal",
        list(video_ids),
        *key,
    )
    found: dict[str, list[Vector]] = {}
    for row in rows:
        vector = row["embedding"].to_numpy().astype(np.float32)  # not in wire order any more
        found.setdefault(row["video_id"], []).append(vector)
    return {video_id: np.stack(vectors) for video_id, vectors in found.items()}


async def search(
    connection: Any, query: Vector, *, place: Place, wish: Wish, exact_segments: int
) -> Sequence[Hit]:
    """Return hits, best first, from one place; ``query`` is float32 (dimensions,), unit length."""
    through_graph = await _through_graph(connection, place, wish, exact_segments)
    effort = _effort(place, wish)
    candidates = max(_LEAST, wish.depth * _MARGIN)
    if through_graph and wish.wanted != Filter():
        candidates = max(candidates, effort // _FILTERED_SHARE)
    while candidates * _SHARE <= place.segments:
        if through_graph:
            statement, values = nearest_sql.propose(query, place, wish, candidates=candidates)
            async with connection.transaction(readonly=True):
                await connection.execute(nearest_sql.settings(max(candidates, effort)))
                rows = await connection.fetch(statement, *values)
        else:
            statement, values = nearest_sql.best(query, place, wish, candidates=candidates)
            rows = await connection.fetch(statement, *values)
        hits = _hits(rows, wish)
        if rows[0]["candidates"] < candidates:
            if not through_graph:
                return hits  # there are no more
            through_graph = False  # the filter leaves too few, or the graph has lost its way
            continue
        worst = rows[0]["worst"]
        # Of those as near as the last hit, the graph may have kept back some that come before it.
        is_full = len(hits) == wish.top_k and worst < hits[-1].segments[0].cosine
        # Nothing above the bound is left to look at.
        is_all = worst < wish.min_cosine - _HALF_STEP
        if is_full or is_all:
            if wish.group_by == "segment" or wish.per_video == 1:
                return hits
            # The other segments of these videos need not be among the candidates.
            among = tuple(hit.video_id for hit in hits)
            found = await _exact(connection, query, place, wish, among=among)
            if len(found) == len(hits):
                return found
            # The graph had missed the best segment of a video: it belongs on a page before this.
        candidates *= 4  # one video can own all candidates
    return await _exact(connection, query, place, wish)


def _effort(place: Place, wish: Wish) -> int:
    """How many nodes the graph keeps in hand (ef): larger ones lose recall with the same number."""
    effort = _EFFORT * math.sqrt(max(1.0, place.segments / _EFFORT_SEGMENTS))
    return round(effort if wish.wanted == Filter() else effort * _FILTERED)


async def _through_graph(connection: Any, place: Place, wish: Wish, exact_segments: int) -> bool:
    """Whether there is a graph, and more is left to compare than is worth while."""
    if not place.has_graph or place.segments <= exact_segments:
        return False
    # The fewer of a place a filter leaves, the more of it a graph goes by in vain.
    compared = exact_segments * math.sqrt(max(1.0, place.segments / _FILTERED_SEGMENTS))
    few = math.ceil(compared * place.videos / place.segments)
    counting = nearest_sql.count_videos(place, wish.wanted, most=few + 1)
    if counting is None:
        return True
    statement, values = counting
    return bool(await connection.fetchval(statement, *values) > few)


async def _exact(
    connection: Any,
    query: Vector,
    place: Place,
    wish: Wish,
    *,
    among: Sequence[str] | None = None,
) -> Sequence[Hit]:
    """Compare everything that the filter leaves, or that ``among`` names of it."""
    statement, values = nearest_sql.exact(query, place, wish, among=among)
    return _hits(await connection.fetch(statement, *values), wish)


def _hits(rows: Sequence[Any], wish: Wish) -> list[Hit]:
    """Hits of rows that come in their order; those of a video stand together."""
    grouped: dict[int, list[SegmentHit]] = {}
    hits: dict[int, Hit] = {}
    for row in rows:
        if row["rank"] is None:  # it is there for the figures alone
            continue
        segment = SegmentHit(
            row["start_seconds"], row["end_seconds"], row["cosine"], row["ordinal"]
        )
        grouped.setdefault(row["rank"], []).append(segment)
        hits.setdefault(row["rank"], Hit(row["video_id"], row["external_id"], row["metadata"], ()))
    found = [replace(hit, segments=tuple(grouped[rank])) for rank, hit in hits.items()]
    return found[: wish.top_k]
