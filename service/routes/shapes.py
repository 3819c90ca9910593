"""Shapes of answers; seconds are floats, times of day are UTC."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class ModelAnswer(_Answer):
    """What made an answer."""

    id: str
    revision: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    space: str
    decoder: str | None = None


class VideoAnswer(_Answer):
    """Facts about the video of a request."""

    sha256: str
    duration: float | None
    fps: float | None
    width: int
    height: int
    rotation: float
    container: str
    codec: str
    frames_used: list[float]


class TagAnswer(_Answer):
    """One label with its scores."""

    label: str
    label_id: str | None
    score: float
    logit: float
    cosine: float


class Warned(_Answer):
    """Something that was repaired or cut, and that the client should know."""

    code: str
    detail: str


class Usage(_Answer):
    """What was worked on."""

    frames: int
    labels: int
    text_cache_hits: int


class ClassifyAnswer(_Answer):
    """Answer of ``POST /classify``."""

    id: str
    video: VideoAnswer
    tags: list[TagAnswer]
    scores: str
    none_score: float | None
    model: ModelAnswer
    warnings: list[Warned]
    usage: Usage
    timings_ms: dict[str, float]
    embedding: list[float] | None = None


class StoredVideoAnswer(_Answer):
    """A video of the index."""

    id: str
    status: Literal["ready"] = "ready"
    external_id: str | None
    metadata: dict[str, Any]
    sha256: str
    size_bytes: int
    duration: float | None
    fps: float | None
    width: int
    height: int
    codec: str
    segments: int
    spaces: list[str]
    created_at: str
    etag: str
    warnings: list[Warned] = Field(default_factory=list)


class VideoPage(_Answer):
    """A page of the list of videos."""

    data: list[StoredVideoAnswer]
    next_cursor: str | None


class Moment(_Answer):
    """A part of a video that fits the query."""

    start: float
    end: float
    score: float
    cosine: float


class HitAnswer(Moment):
    """A video or a segment that fits the query; the times are those of its best segment."""

    video_id: str
    external_id: str | None
    metadata: dict[str, Any]
    segments: list[Moment] | None = Field(
        default=None, description="best segments, with group_by video"
    )


class IndexAnswer(_Answer):
    """What was searched."""

    id: str = "default"
    model: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    space: str
    videos: int
    segments: int


class SearchAnswer(_Answer):
    """Answer of ``POST /search``."""

    data: list[HitAnswer]
    next_cursor: None = None
    index: IndexAnswer
    warnings: list[Warned]
    took_ms: float
