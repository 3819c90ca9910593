"""Shapes of answers; seconds are floats, times of day are UTC."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


Answer = _Answer
"""What answers that are described elsewhere begin with."""


class ModelAnswer(_Answer):
    """What made an answer."""

    id: str
    revision: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    space: str
    precision: str = "float32"
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


class SegmentAnswer(_Answer):
    """What is in [start, end) of a video, seconds."""

    start: float
    end: float
    tags: list[TagAnswer]
    none_score: float | None
    warnings: list[Warned] = Field(description="that the answer for the whole video does not have")
    merged: int = Field(description="neighbours that were joined in this one")


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
    segments: list[SegmentAnswer] | None = Field(
        default=None, description="tags over time, if they were asked for"
    )


class ClassifyMeta(ClassifyAnswer):
    """Data of the event ``meta``: the answer for the video as a whole."""

    segments: None = Field(default=None, exclude=True)
    segments_planned: int | None = Field(description="null: nobody knows before shots are found")


class ClassifyDone(_Answer):
    """Data of the event ``done``."""

    id: str
    segments: int
    usage: Usage
    timings_ms: dict[str, float]


class StoredVideoAnswer(_Answer):
    """A video of the index."""

    id: str
    collection: str
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
    thumbnail_url: str | None = Field(default=None, description="null: the video is not kept")
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
    thumbnail_url: str | None = Field(default=None, description="null: the video is not kept")


class HitAnswer(Moment):
    """A video or a segment that fits the query; the times are those of its best segment."""

    video_id: str
    external_id: str | None
    metadata: dict[str, Any]
    segments: list[Moment] | None = Field(
        default=None, description="best segments, with group_by video"
    )


class IndexAnswer(_Answer):
    """What was searched; the figures are those of this collection in this space."""

    id: str = Field(description="name of the collection")
    model: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    space: str
    videos: int
    segments: int


class CurvePoint(_Answer):
    """What was measured at one lambda in training: set -> mean over seeds (%), and its spread."""

    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    scores: dict[str, float]
    spread: dict[str, float] = Field(description="sets that were measured once have none")
    chosen: bool = Field(description="the rule chose this one: it is the default")
    served: bool


class LambdaSelection(_Answer):
    """The default lambda and the rule that chose it, as a sentence."""

    chosen: float
    why: str


class SpaceAnswer(_Answer):
    """What the index holds at one lambda."""

    space: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    videos: int
    segments: int


class LambdaAnswer(_Answer):
    """The lambda that is served, and what was measured about it."""

    model: str
    revision: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    default: float
    space: str
    resident: list[float]
    grid: list[float]
    metrics: list[CurvePoint]
    selection: LambdaSelection
    per_index: list[SpaceAnswer] | None = Field(description="null while the index is away")


class LambdaChange(LambdaAnswer):
    """Answer of ``PUT /lambda``."""

    jobs: list[str] = Field(description="ids of the jobs that embed collections again")
    warnings: list[Warned]


class ActivationAnswer(_Answer):
    """Answer of ``POST /models/{name}/{revision}/activate``: what is served from now on."""

    model: str
    revision: str
    clip_weight: float = Field(validation_alias="lambda", serialization_alias="lambda")
    space: str
    previous: str = Field(
        description="name@revision that was served before; activate it to go back"
    )
    changed: bool = Field(description="false: it was served already")
    seconds: float
    jobs: list[str] = Field(description="ids of the jobs that embed collections again")
    warnings: list[Warned]


class SearchAnswer(_Answer):
    """Answer of ``POST /search``."""

    data: list[HitAnswer]
    next_cursor: str | None = Field(
        description="send it with the same query for the hits that follow"
    )
    index: IndexAnswer
    warnings: list[Warned]
    took_ms: float
