"""What a search in Milvus is about: its condition, made with Postgres, and what of it is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.index import catalogue, milvus_filter
from service.index.filter import Filter
from service.index.filter_sql import Parameters, segment_condition, video_condition
from service.index.place import Place
from service.index.space import Space

_FEW: Final = 1000  # videos that a condition names one by one


@dataclass(frozen=True)
class Scope:
    """Where a search looks."""

    place: Place
    wanted: Filter
    condition: str


async def scope_of(connection: Any, collection: str, space: Space, wanted: Filter) -> Scope | None:
    """Choose the condition of a search; None: it can find nothing."""
    place = await catalogue.place(connection, collection, space)
    if place is None or not place.segments:
        return None
    condition = milvus_filter.segments(place.collection_id, wanted)
    parameters = Parameters()
    chosen = video_condition(wanted, parameters)
    if chosen is not None:
        rows = await connection.fetch(
            "SELECT v.id FROM videos v WHERE v.collection_id ="  # noqa: S608 - a number of ours
            f" {place.collection_id:d} AND {chosen} LIMIT {_FEW + 1:d}",
            *parameters.values,
        )
        if not rows:
            return None
        more = milvus_filter.among(row["id"] for row in rows)
        if len(rows) > _FEW:
            more = await _facts(connection, place, wanted)
        condition = f"{condition} and ({more})" if more else condition
    return Scope(place, wanted, condition)


async def _facts(connection: Any, place: Place, wanted: Filter) -> str:
    """The condition on facts of videos that Milvus has; empty: it cannot say."""
    condition = milvus_filter.videos(wanted)
    if condition is None:
        return ""
    rows = await connection.fetch(
        "SELECT video_id FROM vector_changes WHERE collection_id = $1 LIMIT $2",
        place.collection_id,
        _FEW + 1,
    )
    if len(rows) > _FEW:
        return ""
    # Of these it has former facts: Postgres decides.
    stale = milvus_filter.among(row["video_id"] for row in rows)
    return f"({condition}) or {stale}" if rows else condition


async def records(
    connection: Any, scope: Scope, rows: Sequence[Mapping[str, Any]]
) -> Mapping[int, Any]:
    """Number of the vector -> row of its segment and video, of those that are so."""
    parameters = Parameters(
        [row["id"] for row in rows],
        [row["video_id"] for row in rows],
        [row["ordinal"] for row in rows],
    )
    conditions = [
        condition
        for condition in (
            video_condition(scope.wanted, parameters),
            segment_condition(scope.wanted, parameters),
        )
        if condition is not None
    ]
    found = await connection.fetch(
        "SELECT s.vector_id, s.start_seconds, s.end_seconds, v.external_id, v.metadata"  # noqa: S608 - numbers of ours and conditions of `filter_sql`
        " FROM unnest($1::bigint[], $2::text[], $3::integer[]) AS c (vector_id, video_id, ordinal)"
        " JOIN segments s ON s.video_id = c.video_id AND s.ordinal = c.ordinal"
        f" AND s.space_id = {scope.place.space_id:d} AND s.vector_id = c.vector_id"
        f" JOIN videos v ON v.id = s.video_id AND v.collection_id = {scope.place.collection_id:d}"
        f" WHERE {' AND '.join(conditions) or 'true'}",
        *parameters.values,
    )
    return {row["vector_id"]: row for row in found}
