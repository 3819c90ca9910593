"""What a search is to return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.index.filter import NO_FILTER, Filter


@dataclass(frozen=True)
class After:
    """Where the next page begins: behind this hit.

    Attributes:
        cosine: of the hit, to the last bit; its best segment's, if hits are videos.
        ordinal: of the segment; None if hits are videos.
        seen: hits so far.
    """

    cosine: float
    video_id: str
    ordinal: int | None
    seen: int


@dataclass(frozen=True)
class Wish:
    """What a search is to return.

    Attributes:
        top_k: most hits.
        group_by: what a hit is. A segment is one hit, and a video has at most ``per_video`` hits;
            or a video is one hit, with at most ``per_video`` segments.
        per_video: see there.
        min_cosine: segments below it are not found.
        wanted: which segments may be found.
        after: the hit that the answer goes on behind; None: from the best one on.
    """

    top_k: int
    group_by: Literal["video", "segment"] = "video"
    per_video: int = 3
    min_cosine: float = -1.0
    wanted: Filter = NO_FILTER
    after: After | None = None

    @property
    def depth(self) -> int:
        """How many segments have to be looked at, those of earlier pages included."""
        seen = 0 if self.after is None else self.after.seen
        return (self.top_k + seen) * (self.per_video if self.group_by == "video" else 1)
