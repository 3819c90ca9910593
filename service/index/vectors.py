"""What an index of videos asks of whatever holds its vectors; records stay in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from service.index.segment import NewSegment, Vector
from service.index.space import Space
from service.index.video_index import Hit
from service.index.wish import Wish


class SegmentRow(NamedTuple):
    """A segment as it is written; the fields are columns of ``segments``."""

    collection_id: int
    space_id: int
    video_id: str
    ordinal: int
    start_seconds: float
    end_seconds: float
    embedding: Vector


def segment_rows(
    video_id: str, segments: Sequence[NewSegment], *, place: tuple[int, int]
) -> list[SegmentRow]:
    """Rows of one video; ``place`` is (collection, space)."""
    return [
        SegmentRow(*place, video_id, number, each.start_seconds, each.end_seconds, each.vector)
        for number, each in enumerate(segments)
    ]


class VectorWriter(Protocol):
    """Writes inside one transaction: what it wrote is there if that commits, else never was."""

    async def write(self, rows: Sequence[SegmentRow]) -> None:
        """Write segments with their vectors.

        Raises:
            IndexUnavailableError: their place does not answer.
        """


class Vectors(Protocol):
    """Holds the vectors of segments. All methods raise `IndexUnavailableError`."""

    async def start(self) -> None:
        """Open it, once the database is.

        Raises:
            IndexSetupError: with one line that tells the operator what to change.
        """

    async def close(self) -> None:
        """Close it, before the database; safe to call twice."""

    async def ping(self) -> None:
        """Return if it answers."""

    def writing(
        self, connection: Any, *, space: Space, space_id: int
    ) -> AbstractAsyncContextManager[VectorWriter]:
        """Open a transaction on a connection, for writes in one space."""

    def grown(self, place: tuple[int, int], segments: int) -> None:
        """Take notice of how many segments a place, (collection, space), has by now."""

    def look(self) -> None:
        """Take notice that whole places were removed."""

    def changed(self) -> None:
        """Take notice that videos were removed, or what filters see of them has changed."""

    async def build(self) -> None:
        """Return when search in large collections is as fast as it gets."""

    async def embeddings(self, video_ids: Sequence[str], *, space: Space) -> Mapping[str, Vector]:
        """Return video id -> the vectors of its segments in one space, float32 (segments, D)."""

    async def search(
        self, query: Vector, *, space: Space, wish: Wish, collection: str
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first."""
