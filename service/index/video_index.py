"""What an index of videos does, whatever holds its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Scalar = bool | int | float | str | None


class IndexUnavailableError(Exception):
    """The database does not answer; trying again later can help."""


class IndexSetupError(Exception):
    """The database cannot be used; the message is one line for the operator."""


class VersionMismatchError(Exception):
    """The video is not in the version the caller wanted to change."""


@dataclass(frozen=True)
class Space:
    """An embedding space: vectors of two spaces are never compared.

    Attributes:
        clip_weight: share of the original CLIP weights, rounded to 4 decimals.
        dimensions: length of its vectors.
    """

    name: str
    revision: str
    clip_weight: float
    dimensions: int

    @property
    def id(self) -> str:
        """The space as one word, such as ``demo@1a2b3c4d5e6f/0.4``."""
        return f"{self.name}@{self.revision}/{self.clip_weight:g}"


@dataclass(frozen=True)
class SpaceContent:
    """How much of a space is in the index."""

    space: Space
    videos: int
    segments: int


@dataclass(frozen=True)
class NewSegment:
    """A time span (seconds) and its vector, float32 (D,), unit length."""

    start_seconds: float
    end_seconds: float
    vector: Vector


@dataclass(frozen=True)
class NewVideo:
    """Facts about a video that is added; ``external_id`` and ``metadata`` are None if not given."""

    sha256: str
    size_bytes: int
    external_id: str | None
    metadata: Mapping[str, Scalar] | None
    duration_seconds: float | None
    fps: float | None
    width: int
    height: int
    codec: str


@dataclass(frozen=True)
class StoredVideo:
    """A video of the index; ``version`` grows with every change."""

    id: str
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


@dataclass(frozen=True)
class Hit:
    """A video that was found with its best segments, best first; never without one."""

    video_id: str
    external_id: str | None
    metadata: Mapping[str, Scalar]
    segments: tuple[SegmentHit, ...]


class VideoIndex(Protocol):
    """Durable videos with segments. All methods raise `IndexUnavailableError`."""

    async def start(self) -> None:
        """Open it, and create what is missing.

        Raises:
            IndexSetupError: with one line that tells the operator what to change.
        """

    async def close(self) -> None:
        """Close it; allowed at any time, any number of times."""

    async def ping(self) -> None:
        """Return if it answers."""

    async def find(self, sha256: str) -> StoredVideo | None:
        """Return the video with this content."""

    async def update(
        self, video_id: str, *, external_id: str | None, metadata: Mapping[str, Scalar] | None
    ) -> StoredVideo | None:
        """Change what is not None; return the video, or None if there is none."""

    async def add(
        self, video: NewVideo, *, space: Space, segments: Sequence[NewSegment]
    ) -> tuple[StoredVideo, bool]:
        """Write a video and its segments in one space, all or nothing.

        A video whose content is there already gets the segments of a space it lacks, and keeps
        the others; those it has stay. Return it, and whether it is new.
        """

    async def get(self, video_id: str) -> StoredVideo | None:
        """Return one video."""

    async def list(
        self, *, limit: int, before: str | None, external_id: str | None
    ) -> Sequence[StoredVideo]:
        """Return videos, newest first, older than the id ``before``."""

    async def delete(self, video_id: str, *, version: int | None) -> bool:
        """Remove a video with everything it has; tell whether it was there.

        Raises:
            VersionMismatchError: it is there, but not in this version.
        """

    async def spaces(self, *, max_age_seconds: float = 0.0) -> Sequence[SpaceContent]:
        """Return the spaces that hold vectors, with their sizes as of ``max_age_seconds`` ago."""

    async def search(
        self,
        query: Vector,
        *,
        space: Space,
        top_k: int,
        group_by: Literal["video", "segment"],
        per_video: int,
        min_cosine: float,
    ) -> Sequence[Hit]:
        """Return the nearest by cosine, best first; ``query`` is float32 (D,), unit length.

        With ``group_by="segment"`` each hit has one segment, and a video has at most
        ``per_video`` hits; with ``"video"`` a video is one hit with at most ``per_video`` segments.
        """
