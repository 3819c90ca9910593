"""Writes vectors to Milvus inside a transaction of Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from service.index.milvus import Milvus
from service.index.milvus_filter import microseconds
from service.index.vectors import SegmentRow

NUMBERS: Final = 2**20
"""Vectors of one write: their numbers are the write's times this, and from there on."""

_COLUMNS: Final = (*SegmentRow._fields[:-1], "vector_id")


class MilvusWriter:
    """`VectorWriter` of one transaction.

    Args:
        connection: in that transaction.
        milvus: where the vectors go, at once.
        name: of the Milvus collection.
        number: of this write; no other ever has it.
        dimensions: length of the vectors.
    """

    def __init__(
        self, connection: Any, milvus: Milvus, *, name: str, number: int, dimensions: int
    ) -> None:
        self._connection = connection
        self._milvus = milvus
        self._name = name
        self._next = number * NUMBERS
        self._end = self._next + NUMBERS
        self._dimensions = dimensions

    async def write(self, rows: Sequence[SegmentRow]) -> None:
        """Write segments here and their vectors there.

        Raises:
            ValueError: a vector has something in it that is no number, or there are too many.
            IndexUnavailableError: Milvus does not take them.
        """
        if len(rows) > self._end - self._next:
            raise ValueError(f"more than {NUMBERS} segments in one write")
        if not all(np.isfinite(row.embedding).all() for row in rows):
            raise ValueError("a vector with a value that is not finite")
        numbers = range(self._next, self._next + len(rows))
        self._next = numbers.stop
        await self._connection.copy_records_to_table(
            "segments",
            columns=_COLUMNS,
            records=[(*row[:-1], number) for row, number in zip(rows, numbers, strict=True)],
        )
        facts = await self._connection.fetch(
            "SELECT id, external_id, metadata, created_at FROM videos WHERE id = ANY($1::text[])",
            sorted({row.video_id for row in rows}),
        )
        known = {fact["id"]: filterable(fact) for fact in facts}
        await self._milvus.write(
            self._name,
            [
                {
                    "id": number,
                    "collection_id": row.collection_id,
                    "video_id": row.video_id,
                    "ordinal": row.ordinal,
                    "start_seconds": row.start_seconds,
                    "end_seconds": row.end_seconds,
                    "vector": row.embedding,
                    **known[row.video_id],
                }
                for row, number in zip(rows, numbers, strict=True)
            ],
            dimensions=self._dimensions,
        )


def filterable(video: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that filters in Milvus see of a video."""
    return {
        "external_id": video["external_id"] or "",
        "metadata": video["metadata"],
        "created_at": microseconds(video["created_at"]),
    }
