"""What an index of videos does, whatever holds its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.index.change import Scalar, VideoChange
from service.index.collection import DEFAULT_COLLECTION, Collection
from service.index.segment import NewSegment, Vector
from service.index.space import Space, SpaceContent
from service.index.space_index import SpaceIndex
from service.index.wish import Wish

# More of the words below, from where they are.
__all__ = ["NewSegment", "Scalar", "Space", "SpaceContent", "Vector"]


class IndexUnavailableError(Exception):
    """The database does not answer; trying again later can help."""


class IndexSetupError(Exception):
    """The database cannot be used; the message is one line for the operator."""


class VersionMismatchError(Exception):
    """The video is not in the version the caller wanted to change."""


@dataclass(frozen=True)
class NewVideo:
    """Facts about a video that is added; ``external_id`` and ``metadata`` are None if not given.

    Attributes:
        collection: where it is added; the same content can be in several.
    """

    sha256: str
    size_bytes: int
    external_id: str | None
    metadata: Mapping[str, Scalar] | None
    duration_seconds: float | None
    fps: float | None
    width: int
    height: int
    codec: str
    collection: str = DEFAULT_COLLECTION


@dataclass(frozen=True)
class StoredVideo:
    """A video of the index; ``version`` grows with every change."""

    id: str
    collection: str
    version: int
    sha256: str
    size_bytes: int
    external_id: str | None
    metadata: Mapping[str, Scalar]
    duration_seconds: float | None
    fps: float | None
    width: int
    height: int
    codec: str
    segments: int
    spaces: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True)
class SegmentHit:
    """A segment that was found, with the cosine between its vector and the query."""

    start_seconds: float
    end_seconds: float
    cosine: float
    ordinal: int


@dataclass(frozen=True)
class Hit:
    """A video that was found with its best segments, best first; never without one."""

    video_id: str
    external_id: str | None
    metadata: Mapping[str, Scalar]
    segments: tuple[SegmentHit, ...]


Batch = Sequence[tuple[NewVideo, Sequence[NewSegment]]]


class VideoIndex(SpaceIndex, Protocol):
    """Durable videos with segments. All methods raise `IndexUnavailableError`."""

    async def start(self) -> None:
        """Open it, and bring what it keeps to its present shape.

        Raises:
            IndexSetupError: with one line that tells the operator what to change.
        """

    async def close(self) -> None:
        """Close it; allowed at any time, any number of times."""

    async def ping(self) -> None:
        """Return if it answers."""

    async def create_collection(self, name: str) -> Collection:
        """Make an empty collection.

        Raises:
            CollectionExistsError: the name is taken.
        """

    async def collection(self, name: str) -> Collection | None:
        """Return one collection."""

    async def collections(self) -> Sequence[Collection]:
        """Return all collections, by name."""

    async def delete_collection(self, name: str) -> bool:
        """Remove a collection with all its videos; tell whether it was there."""

    async def find(
        self, sha256: str, *, collection: str = DEFAULT_COLLECTION
    ) -> StoredVideo | None:
        """Return the video of a collection that has this content."""

    async def update(
        self, video_id: str, *, external_id: str | None, metadata: Mapping[str, Scalar] | None
    ) -> StoredVideo | None:
        """Change what is not None; return the video, or None if there is none."""

    async def change(
        self, video_id: str, wanted: VideoChange, *, version: int | None
    ) -> StoredVideo | None:
        """Merge a change into a video; return it, or None if there is none.

        Raises:
            VersionMismatchError: it is there, but not in this version.
            MetadataLimitError: it would have too many keys.
        """

    async def add(
        self, video: NewVideo, *, space: Space, segments: Sequence[NewSegment]
    ) -> tuple[StoredVideo, bool]:
        """Write a video and its segments in one space, all or nothing.

        A video whose content is there already gets the segments of a space it lacks, and keeps
        the others; those it has stay. Return it, and whether it is new in its collection.

        Raises:
            CollectionMissingError: the collection is not there.
        """

    async def add_many(self, batch: Batch, *, space: Space) -> Sequence[bool]:
        """Write many videos and their segments in one space at once, all or nothing.

        Each becomes as by `add`. What makes search fast is built once no more have come for a
        while, or `build_graphs` is called; meanwhile search is slower, not worse.

        Returns:
            Whether each is new in its collection.

        Raises:
            CollectionMissingError: a collection is not there.
        """

    async def build_graphs(self) -> None:
        """Return when search in large collections is as fast as it gets."""

    async def get(self, video_id: str) -> StoredVideo | None:
        """Return one video."""

    async def list(
        self,
        *,
        limit: int,
        before: str | None,
        external_id: str | None,
        collection: str = DEFAULT_COLLECTION,
    ) -> Sequence[StoredVideo]:
        """Return videos of a collection, newest first, older than the id ``before``."""

    async def delete(self, video_id: str, *, version: int | None) -> bool:
        """Remove a video with everything it has; tell whether it was there.

        Raises:
            VersionMismatchError: it is there, but not in this version.
        """

    async def embeddings(self, video_ids: Sequence[str], *, space: Space) -> Mapping[str, Vector]:
        """Return video id -> the vectors of its segments in one space, float32 (segments, D).

        Videos that have none there are left out.
        """

    async def search(
        self,
        query: Vector,
        *,
        space: Space,
        wish: Wish,
        collection: str = DEFAULT_COLLECTION,
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first; ``query`` is float32 (D,), unit length.

        Hits of the same cosine are in the order of their ids.
        """
