"""The SQL of nearest neighbours: exact while a space is small, HNSW beyond.

Vectors have unit length, so the inner product is the cosine (pgvector's ``<#>`` is its negative).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from service.index.video_index import Hit, SegmentHit, Vector

_EF_SEARCH: Final = 100  # breadth of the graph search; below it recall suffers under filters
_MAX_EF_SEARCH: Final = 1000  # pgvector's own bound
_MARGIN: Final = 4  # candidates per wanted segment at first


@dataclass(frozen=True)
class Wish:
    """What a search is to return; see `VideoIndex.search`."""

    top_k: int
    group_by: Literal["video", "segment"]
    per_video: int
    min_cosine: float

    @property
    def segments(self) -> int:
        """How many segments an answer can hold."""
        return self.top_k * (self.per_video if self.group_by == "video" else 1)


def create_index(space_id: int, dimensions: int) -> str:
    """Return the statement for the graph of one space (M and ef_construction of vector.md)."""
    return (
        f"CREATE INDEX segments_hnsw_{space_id:d} ON segments"
        f" USING hnsw ((embedding::vector({dimensions:d})) vector_ip_ops)"
        f" WITH (m = 16, ef_construction = 128) WHERE space_id = {space_id:d}"
    )


async def search(
    connection: Any,
    query: Vector,
    *,
    space_id: int,
    dimensions: int,
    wish: Wish,
    exact_segments: int,
) -> Sequence[Hit]:
    """Return hits, best first, from one space; ``query`` is float32 (dimensions,), unit length."""
    many = await connection.fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM segments WHERE space_id = $1 LIMIT $2) AS few",
        space_id,
        exact_segments + 1,
    )
    if many <= exact_segments:
        rows = await connection.fetch(_statement(space_id, None), query, *_bounds(wish), None)
        return _hits(rows, wish)
    candidates = max(_EF_SEARCH, wish.segments * _MARGIN)
    while True:
        async with connection.transaction(readonly=True):
            breadth = min(_MAX_EF_SEARCH, candidates)
            await connection.execute(f"SET LOCAL hnsw.ef_search = {breadth:d}")
            await connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            rows = await connection.fetch(
                _statement(space_id, dimensions), query, *_bounds(wish), candidates
            )
        hits = _hits(rows, wish)
        used = rows[0]["candidates"] if rows else 0
        # One video can own all candidates: look further until the answer is full, or nothing
        # above the bound is left to look at.
        bounded = rows and rows[0]["worst"] < wish.min_cosine
        if len(hits) >= wish.top_k or used < candidates or bounded:
            return hits
        candidates *= 4


def _bounds(wish: Wish) -> tuple[int, float]:
    return wish.per_video, wish.min_cosine


def _statement(space_id: int, dimensions: int | None) -> str:
    # Without the cast no index matches, which makes the scan exact. The numbers are ours, and the
    # planner must see them to match the partial index.
    column = "embedding" if dimensions is None else f"(embedding::vector({dimensions:d}))"
    cast = "vector" if dimensions is None else f"vector({dimensions:d})"
    return f"""
        WITH candidates AS MATERIALIZED (
            SELECT video_id, ordinal, start_seconds, end_seconds,
                   -({column} <#> $1::{cast}) AS cosine
            FROM segments WHERE space_id = {space_id:d}
            ORDER BY {column} <#> $1::{cast} LIMIT $4
        ), placed AS (
            SELECT *, count(*) OVER () AS candidates, min(cosine) OVER () AS worst,
                   row_number() OVER (PARTITION BY video_id ORDER BY cosine DESC, ordinal) AS place
            FROM candidates
        )
        SELECT placed.*, v.external_id, v.metadata FROM placed JOIN videos v ON v.id = video_id
        WHERE place <= $2 AND cosine >= $3
        ORDER BY cosine DESC, video_id, ordinal
    """  # noqa: S608 - only integers of ours are put in


def _hits(rows: Sequence[Any], wish: Wish) -> list[Hit]:
    grouped: dict[str, list[SegmentHit]] = {}
    hits: dict[str, Hit] = {}
    for row in rows:
        segment = SegmentHit(row["start_seconds"], row["end_seconds"], min(1.0, row["cosine"]))
        by_video = wish.group_by == "video"
        key = row["video_id"] if by_video else f"{row['video_id']} {row['ordinal']}"
        if key not in grouped and len(grouped) == wish.top_k:
            if by_video:
                continue  # later rows may still belong to videos that are in
            break
        grouped.setdefault(key, []).append(segment)
        hits.setdefault(key, Hit(row["video_id"], row["external_id"], row["metadata"], ()))
    return [
        Hit(hit.video_id, hit.external_id, hit.metadata, tuple(grouped[key]))
        for key, hit in hits.items()
    ]
