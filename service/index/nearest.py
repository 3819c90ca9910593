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
from service.index.place import Place
from service.index.video_index import Hit, SegmentHit, Vector
from service.index.wish import Wish

_LEAST: Final = 50  # candidates; with fewer recall suffers under filters
_MARGIN: Final = 4  # candidates per wanted segment at first
_EFFORT: Final = 100  # nodes in hand for a graph of ...
_EFFORT_SEGMENTS: Final = 50_000  # ... so many segments; more with each doubling
_EFFORT_GROWTH: Final = 0.25
_GRAPH_SHARE: Final = 4  # candidates beyond this part of a place: comparing all is no more work
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
    if not await _through_graph(connection, place, wish, exact_segments):
        return await _exact(connection, query, place, wish)
    candidates = max(_LEAST, wish.depth * _MARGIN)
    while candidates * _GRAPH_SHARE <= place.segments:
        statement, values = nearest_sql.propose(query, place, wish, candidates=candidates)
        async with connection.transaction(readonly=True):
            await connection.execute(nearest_sql.settings(max(candidates, _effort(place))))
            rows = await connection.fetch(statement, *values)
        if rows[0]["candidates"] < candidates:
            break  # the filter leaves too few, or the graph has lost its way between them
        hits = _hits(rows, wish)
        is_full = len(hits) == wish.top_k
        # Nothing above the bound is left to look at.
        is_all = rows[0]["worst"] < wish.min_cosine - _HALF_STEP
        if is_full or is_all:
            if wish.group_by == "segment" or wish.per_video == 1:
                return hits
            # The other segments of these videos need not be among the candidates.
            among = tuple(hit.video_id for hit in hits)
            return await _exact(connection, query, place, wish, among=among)
        candidates *= 4  # one video can own all candidates
    return await _exact(connection, query, place, wish)


def _effort(place: Place) -> int:
    """How many nodes the graph keeps in hand (ef): larger ones lose recall with the same number."""
    doublings = math.log2(max(1.0, place.segments / _EFFORT_SEGMENTS))
    return round(_EFFORT * (1 + _EFFORT_GROWTH * doublings))


async def _through_graph(connection: Any, place: Place, wish: Wish, exact_segments: int) -> bool:
    """Whether there is a graph, and more is left to compare than is worth while."""
    if not place.has_graph or place.segments <= exact_segments:
        return False
    few = math.ceil(exact_segments * place.videos / place.segments)
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
