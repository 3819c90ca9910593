"""The statements of `nearest`. Numbers of ours are written into them, values are parameters.

The planner must see the numbers of the place, or it does not match the partial index of its graph.
"""
# ruff: noqa: S608 - only integers of ours and conditions of `filter_sql` are put in

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.index.filter import Filter
from service.index.filter_sql import Parameters, segment_condition, video_condition
from service.index.place import Place
from service.index.video_index import Vector
from service.index.wish import Wish

Statement = tuple[str, Sequence[object]]

_MAX_EF_SEARCH: Final = 1000  # pgvector's own bound
_MAX_SCAN: Final = 40_000  # segments that the graph may visit for one answer
_SCAN_MEMORY: Final = 8  # times work_mem, 4 MB if nobody changed it
_SEGMENT: Final = (
    "s.video_id, s.ordinal, s.start_seconds, s.end_seconds,"
    # Rounding may leave a cosine just outside of what a cosine can be.
    " greatest(-1.0, least(1.0, -(s.embedding <#> $1::vector))) AS cosine"
)


def settings(effort: int) -> str:
    """Return the statement that prepares a transaction for `propose`; ``effort`` is HNSW's ef."""
    wanted = {
        "hnsw.ef_search": str(min(_MAX_EF_SEARCH, effort)),
        # The order of what comes is not that of the answer, so it need not be strict.
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(_MAX_SCAN),
        "hnsw.scan_mem_multiplier": str(_SCAN_MEMORY),
        # There is one plan that makes sense here, whatever the planner believes about filters.
        **dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "enable_sort"), "off"),
    }
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', true)" for name, value in wanted.items()
    )


def count_videos(place: Place, wanted: Filter, *, most: int) -> Statement | None:
    """How many videos a filter leaves, counted up to ``most``; None: it does not choose videos."""
    parameters = Parameters()
    condition = video_condition(wanted, parameters)
    if condition is None:
        return None
    return (
        f"SELECT count(*) FROM (SELECT FROM videos v WHERE v.collection_id ="
        f" {place.collection_id:d} AND {condition} LIMIT {most:d}) AS counted",
        parameters.values,
    )


def propose(query: Vector, place: Place, wish: Wish, *, candidates: int) -> Statement:
    """Ranked hits among the nearest that the graph knows; the first row has the figures.

    ``candidates`` is how many it gave, ``worst`` their least cosine. ``rank`` is null in a row that
    is no hit.
    """
    parameters = Parameters(query)
    conditions = _conditions(place, wish.wanted, parameters)
    condition = video_condition(wish.wanted, parameters)
    if condition is not None:
        # A value, not a join: so it is asked for each segment that the graph comes by, in turn.
        conditions.append(f"(SELECT {condition} FROM videos v WHERE v.id = s.video_id)")
    half = f"halfvec({place.dimensions:d})"
    scored = (
        f"SELECT {_SEGMENT} FROM segments s WHERE {' AND '.join(conditions)}"
        f" ORDER BY s.embedding::{half} <#> $1::vector::{half} LIMIT {candidates:d}"
    )
    return _with_figures(scored, wish, parameters), parameters.values


def best(query: Vector, place: Place, wish: Wish, *, candidates: int) -> Statement:
    """As `propose`, but the best among all that the filter leaves, found by comparing them all."""
    parameters = Parameters(query)
    scored = (
        f"SELECT * FROM ({_compared(place, wish, parameters)}) compared"
        f" ORDER BY cosine DESC, video_id, ordinal LIMIT {candidates:d}"
    )
    return _with_figures(scored, wish, parameters), parameters.values


def exact(
    query: Vector, place: Place, wish: Wish, *, among: Sequence[str] | None = None
) -> Statement:
    """Ranked hits among all; or among some videos, which passed the filter on videos before."""
    parameters = Parameters(query)
    scored = _compared(place, wish, parameters, among=among)
    return (
        f"WITH scored AS ({scored}), {_ranked(wish, parameters)}"
        " SELECT * FROM hits ORDER BY rank, place",
        parameters.values,
    )


def _compared(
    place: Place, wish: Wish, parameters: Parameters, *, among: Sequence[str] | None = None
) -> str:
    """All segments that the filter leaves, with their cosines."""
    conditions = _conditions(place, wish.wanted, parameters)
    # Of a video that was chosen: its collection is known, and naming it would let the planner read
    # the whole place for each video, which it does while it has no statistics.
    of_video = " AND ".join(["s.video_id = chosen.id", *conditions[1:]])
    condition = video_condition(wish.wanted, parameters) if among is None else None
    if among is not None:
        chosen = f"SELECT unnest({parameters.put(list(among), 'text[]')}) AS id"
    elif condition is not None:
        chosen = (
            f"SELECT v.id FROM videos v WHERE v.collection_id = {place.collection_id:d}"
            f" AND {condition} OFFSET 0"
        )
    else:
        return f"SELECT {_SEGMENT} FROM segments s WHERE {' AND '.join(conditions)}"
    # LATERAL and OFFSET keep it at this plan: few videos first, then their segments.
    return (
        f"SELECT s.* FROM ({chosen}) chosen, LATERAL"
        f" (SELECT {_SEGMENT} FROM segments s WHERE {of_video} OFFSET 0) s"
    )


def _with_figures(scored: str, wish: Wish, parameters: Parameters) -> str:
    """Ranked hits of candidates; the first row has how many there were, and the least cosine."""
    found = "SELECT count(*) AS candidates, min(cosine) AS worst FROM scored"
    return (
        f"WITH scored AS MATERIALIZED ({scored}), {_ranked(wish, parameters)}"
        f" SELECT * FROM ({found}) figures LEFT JOIN hits ON true ORDER BY rank, place"
    )


def _conditions(place: Place, wanted: Filter, parameters: Parameters) -> list[str]:
    found = [f"s.collection_id = {place.collection_id:d}", f"s.space_id = {place.space_id:d}"]
    condition = segment_condition(wanted, parameters)
    return found if condition is None else [*found, condition]


def _ranked(wish: Wish, parameters: Parameters) -> str:
    """From ``scored`` to ``hits``: at most so many of a video, behind the last page, in order."""
    by_video = wish.group_by == "video"
    least = parameters.put(wish.min_cosine, "double precision")
    conditions = [f"place <= {wish.per_video:d}"]
    key, order = ("best", "best DESC, video_id")
    rank = "dense_rank()"
    if not by_video:
        key, order = ("cosine", "cosine DESC, video_id, ordinal")
        rank = "row_number()"
    if wish.after is not None:
        cosine = parameters.put(wish.after.cosine, "double precision")
        last = parameters.put(wish.after.video_id, "text")
        behind = f"video_id > {last}"
        if not by_video:
            ordinal = parameters.put(wish.after.ordinal, "integer")
            behind = f"(video_id, ordinal) > ({last}, {ordinal})"
        conditions.append(f"({key} < {cosine} OR ({key} = {cosine} AND {behind}))")
    return f"""
        placed AS (
            SELECT *, max(cosine) OVER (PARTITION BY video_id) AS best,
                   row_number() OVER (PARTITION BY video_id ORDER BY cosine DESC, ordinal) AS place
            FROM scored WHERE cosine >= {least}
        ), ranked AS (
            SELECT *, {rank} OVER (ORDER BY {order}) AS rank
            FROM placed WHERE {" AND ".join(conditions)}
        ), hits AS (
            SELECT ranked.*, v.external_id, v.metadata
            FROM ranked JOIN videos v ON v.id = video_id WHERE rank <= {wish.top_k:d}
        )"""
