"""Vectors in Milvus, of segments whose rows are in Postgres.

The row is what counts: a vector is written before the transaction of its row commits, and is found
only through a row that names it. So a video is there whole or not at all, whatever dies when; what
Milvus still holds without need is removed later (see `milvus_debts`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np

from service.index import catalogue, milvus_filter
from service.index.database import Database
from service.index.milvus import MAX_LIMIT, Milvus
from service.index.milvus_debts import MilvusDebts
from service.index.milvus_scope import Scope, records, scope_of
from service.index.milvus_writer import MilvusWriter
from service.index.ranking import Candidate, rank
from service.index.segment import Vector
from service.index.space import Space
from service.index.vectors import VectorWriter
from service.index.video_index import Hit, IndexSetupError, IndexUnavailableError, SegmentHit
from service.index.wish import Wish

_LEAST: Final = 100  # candidates
_MARGIN: Final = 4  # candidates per wanted segment at first
_STEP: Final = 1e-4  # cosines of Milvus are nearer than this to ours
_AT_ONCE: Final = 1000  # vectors that are read by their numbers


class MilvusVectors:
    """`Vectors` in Milvus.

    Args:
        database: of the rows; whoever has it starts and stops it.
        milvus: started and stopped here.
    """

    def __init__(self, database: Database, milvus: Milvus) -> None:
        self._database = database
        self._milvus = milvus
        self._prefix = ""
        self._debts = MilvusDebts(database, milvus, name=self._name)

    async def start(self) -> None:
        """Connect, and see whether this is the Milvus that has the vectors of the database."""
        await self._milvus.start()
        name = await self._database.run(lambda c: catalogue.keep_vectors(c, "milvus"))
        self._prefix = f"vtag_{name}"
        rows = await self._database.run(
            lambda c: c.fetch("SELECT DISTINCT space_id FROM contents WHERE segments > 0")
        )
        for row in rows:
            try:
                is_there = await self._milvus.has(self._name(row["space_id"]))
            except IndexUnavailableError:
                raise IndexSetupError("VTAG_VECTOR_URL: does not answer") from None
            if not is_there:
                raise IndexSetupError(
                    "VTAG_VECTOR_URL: another Milvus has the vectors of this database"
                )
        self._debts.start()

    async def close(self) -> None:
        """Disconnect."""
        await self._debts.stop()
        await self._milvus.close()

    async def ping(self) -> None:
        """Return if it answers."""
        await self._milvus.ping()

    @asynccontextmanager
    async def writing(
        self, connection: Any, *, space: Space, space_id: int
    ) -> AsyncIterator[VectorWriter]:
        """Open a transaction on a connection, for writes in one space."""
        # On record before anything is in Milvus, and off it with the commit.
        number = await connection.fetchval(
            "INSERT INTO vector_writes (space_id) VALUES ($1) RETURNING id", space_id
        )
        async with connection.transaction():
            held = await connection.fetchval(
                "DELETE FROM vector_writes WHERE id = $1 RETURNING true", number
            )
            if not held:  # it took so long that somebody thought us dead
                raise IndexUnavailableError
            yield MilvusWriter(
                connection,
                self._milvus,
                name=self._name(space_id),
                number=number,
                dimensions=space.dimensions,
            )

    def grown(self, place: tuple[int, int], segments: int) -> None:
        """Milvus builds its graphs by itself."""

    def look(self) -> None:
        """Remove soon what was removed from Postgres."""
        self._debts.look()

    def changed(self) -> None:
        """Bring soon to Milvus what has changed in Postgres."""
        self._debts.look()

    async def build(self) -> None:
        """Return when Milvus has built its graphs."""
        rows = await self._database.run(
            lambda c: c.fetch("SELECT DISTINCT space_id FROM contents WHERE segments > 0")
        )
        for row in rows:
            await self._milvus.build(self._name(row["space_id"]))

    async def settle(self) -> None:
        """Return when Milvus holds nothing that was removed, and knows what was changed."""
        await self._debts.settle()

    async def embeddings(self, video_ids: Sequence[str], *, space: Space) -> Mapping[str, Vector]:
        """Return video id -> the vectors of its segments in one space, float32 (segments, D)."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT video_id, vector_id, space_id FROM segments"
                " WHERE video_id = ANY($1::text[]) AND vector_id IS NOT NULL AND space_id ="
                " (SELECT id FROM spaces"
                "  WHERE (name, revision, clip_weight) = ($2::text, $3::text, $4))"
                " ORDER BY video_id, ordinal",
                list(video_ids),
                *catalogue.space_key(space),
            )
        )
        known: dict[int, Any] = {}
        for start in range(0, len(rows), _AT_ONCE):
            numbers = [row["vector_id"] for row in rows[start : start + _AT_ONCE]]
            found = await self._milvus.read(
                self._name(rows[0]["space_id"]),
                f"id in {numbers}",
                fields=["id", "vector"],
            )
            known |= {each["id"]: each["vector"] for each in found}
        grouped: dict[str, list[Any]] = {}
        for row in rows:
            if row["vector_id"] in known:  # else removed in between
                grouped.setdefault(row["video_id"], []).append(known[row["vector_id"]])
        return {key: np.asarray(vectors, np.float32) for key, vectors in grouped.items()}

    async def search(
        self, query: Vector, *, space: Space, wish: Wish, collection: str
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first."""
        scope = await self._database.run(lambda c: scope_of(c, collection, space, wish.wanted))
        if scope is None:
            return []
        limit = min(MAX_LIMIT, max(_LEAST, wish.depth * _MARGIN))
        while True:
            worst, candidates = await self._propose(query, scope, scope.condition, limit=limit)
            hits = rank(candidates, wish)
            if worst is None or worst < wish.min_cosine - _STEP:
                return hits  # nothing that could be one is left
            if len(hits) == wish.top_k or limit == MAX_LIMIT:
                if wish.group_by == "segment" or wish.per_video == 1:
                    return hits
                found = await self._complete(query, scope, wish, hits)
                # Else the best segment of a video was missed: it belongs on a page before this.
                if len(found) == len(hits) or limit == MAX_LIMIT:
                    return found
            limit = min(MAX_LIMIT, limit * 4)  # one video can own all candidates

    async def _complete(
        self, query: Vector, scope: Scope, wish: Wish, hits: Sequence[Hit]
    ) -> Sequence[Hit]:
        """Look for the other segments of the videos found: they need not be among the nearest."""
        ids = [hit.video_id for hit in hits]
        condition = (
            f"{milvus_filter.segments(scope.place.collection_id, scope.wanted)}"
            f" and {milvus_filter.among(ids)}"
        )
        limit = min(MAX_LIMIT, max(_LEAST, len(ids) * wish.per_video * _MARGIN))
        while True:
            worst, candidates = await self._propose(query, scope, condition, limit=limit)
            found = rank(candidates, wish)
            is_full = all(len(hit.segments) == wish.per_video for hit in found)
            if worst is None or limit == MAX_LIMIT or (is_full and len(found) == len(ids)):
                return found
            limit = min(MAX_LIMIT, limit * 4)

    async def _propose(
        self, query: Vector, scope: Scope, condition: str, *, limit: int
    ) -> tuple[float | None, Sequence[Candidate]]:
        """The nearest that Milvus knows and that are so: least cosine, None if all came; they."""
        rows = await self._milvus.nearest(
            self._name(scope.place.space_id),
            query,
            wanted=condition,
            limit=limit,
            fields=["id", "video_id", "ordinal", "vector"],
        )
        if not rows:
            return None, []
        vectors = np.asarray([row["vector"] for row in rows], np.float64)
        # Row by row: equal vectors have equal cosines, on every page.
        cosines = np.clip((vectors * query.astype(np.float64)).sum(axis=1), -1.0, 1.0).tolist()
        known = await self._database.run(lambda c: records(c, scope, rows))
        candidates = []
        for row, cosine in zip(rows, cosines, strict=True):
            record = known.get(row["id"])
            if record is not None:
                segment = SegmentHit(
                    record["start_seconds"], record["end_seconds"], cosine, row["ordinal"]
                )
                candidates.append(
                    Candidate(row["video_id"], record["external_id"], record["metadata"], segment)
                )
        return (min(cosines) if len(rows) == limit else None), candidates

    def _name(self, space_id: int) -> str:
        return f"{self._prefix}_{space_id:d}"
