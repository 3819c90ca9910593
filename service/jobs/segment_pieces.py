"""Tagged segments as they are kept between two attempts of a job."""

from __future__ import annotations

from service.jobs.job import Json
from service.results import TaggedSegment
from service.tags import Tag
from service.videoclip.errors import VideoWarning


def packed(segment: TaggedSegment) -> Json:
    """Return a segment as JSON holds it, without loss."""
    return {
        "start": segment.start,
        "end": segment.end,
        "tags": [list(tag) for tag in segment.tags],
        "none_score": segment.none_score,
        "warnings": [[warning.code, warning.detail] for warning in segment.warnings],
        "encoded_frames": segment.encoded_frames,
    }


def unpacked(piece: Json) -> TaggedSegment:
    """Return the segment that was packed."""
    return TaggedSegment(
        start=piece["start"],
        end=piece["end"],
        tags=tuple(Tag(*tag) for tag in piece["tags"]),
        none_score=piece["none_score"],
        warnings=tuple(VideoWarning(code, detail) for code, detail in piece["warnings"]),
        encoded_frames=piece["encoded_frames"],
    )
