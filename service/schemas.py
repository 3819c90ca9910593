"""Shapes of requests: unknown fields are refused, numbers are finite, seconds are floats."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

MAX_METADATA_KEYS = 64
_MAX_INTEGER = 2**53  # beyond it JSON readers disagree about the value


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=False)


RequestShape = _Request
"""What requests that are described elsewhere begin with."""


def _printable(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("must not hold control characters")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_printable)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_printable)]
Integer = Annotated[int, Field(ge=-_MAX_INTEGER, le=_MAX_INTEGER)]
Scalar = bool | Integer | float | Text | None
Metadata = Annotated[dict[Key, Scalar], Field(max_length=MAX_METADATA_KEYS)]
Weight = Annotated[float, Field(ge=0.0, le=1.0)]
Time = Annotated[float, Field(ge=0.0, le=1e9)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=500)]


CollectionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", strict=True)
]


class VideoSource(_Request):
    """Where the bytes of a video come from. URLs: if the service allows; videos are not kept."""

    type: Literal["base64", "url", "video_id", "upload_id"]
    data: str | None = Field(default=None, description="standard, padded base64, for type base64")
    url: str | None = None
    video_id: str | None = None
    upload_id: str | None = None


class Label(_Request):
    """A label with other ways to say it, and texts that speak against it."""

    id: Name | None = None
    text: str | list[str] = Field(description="one text or several; the first is the name")
    negative: list[str] = Field(default_factory=list)


class SamplingOptions(_Request):
    """Which frames are used, in which part of the video (seconds, half-open)."""

    mode: Literal["uniform", "fps", "strided", "keyframes", "timestamps"] | None = Field(
        default=None,
        description="none: as the model was trained; keyframes is the fast one: evenly spread key "
        "pictures, and nothing between them is decoded",
    )
    frames: Annotated[int, Field(ge=1, le=1024)] | None = None
    views: Annotated[int, Field(ge=1, le=32)] | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    timestamps: Annotated[list[Time], Field(min_length=1, max_length=1024)] | None = None
    start: Time | None = None
    end: Time | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.fps is not None) != (self.mode in ("fps", "strided")):
            raise ValueError('fps goes with mode "fps" or "strided", and they need it')
        if (self.timestamps is not None) != (self.mode == "timestamps"):
            raise ValueError('timestamps go with mode "timestamps", and it needs them')
        if self.views is not None and self.mode not in ("fps", "strided"):
            raise ValueError('views go with mode "fps" or "strided"')
        if self.frames is not None and self.mode == "timestamps":
            raise ValueError("frames and timestamps exclude each other")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("start must be before end")
        return self


class SegmentOptions(_Request):
    """Tags over time: how the video is cut, and what of each segment is answered."""

    mode: Literal["windows", "fixed", "shots"] = Field(
        default="windows", description="fixed is another word for windows"
    )
    length: Annotated[float, Field(ge=0.1, le=3600)] | None = Field(
        default=None, description="seconds of a window; of a shot the most"
    )
    overlap: Annotated[float, Field(ge=0.0, le=3600)] | None = Field(
        default=None, description="seconds that a window shares with the one before it"
    )
    min_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = Field(
        default=None, description="least score of a tag of a segment; default: threshold"
    )
    merge: bool = Field(
        default=False, description="join neighbours that keep the same labels; needs a selection"
    )


class VideoOptions(_Request):
    """What requests with a video share; ``video`` is absent when the form holds the file."""

    video: VideoSource | None = None
    model: Name | None = Field(default=None, description="must be the model that is served")
    clip_weight: Weight | None = Field(
        default=None, validation_alias="lambda", serialization_alias="lambda"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


class ClassifyRequest(VideoOptions):
    """Options of ``POST /classify``."""

    labels: Annotated[list[str | Label], Field(min_length=1)]
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    template_set: Name | None = None
    sampling: SamplingOptions | None = None
    segments: SegmentOptions | None = None
    scores: Literal["softmax", "independent", "cosine"] = "softmax"
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = None
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    allow_none: bool = Field(default=True, description="report none_score with independent scores")
    include: list[Literal["frames", "timings", "embedding"]] = Field(
        default_factory=list, description="frames and timings are always there"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.templates is not None and self.template_set is not None:
            raise ValueError("templates and template_set exclude each other")
        return self


class Segmentation(_Request):
    """How an indexed video is cut."""

    mode: Literal["windows", "fixed", "shots"] = Field(
        default="windows", description="fixed is another word for windows"
    )
    length: Annotated[float, Field(ge=0.1, le=3600)] | None = Field(
        default=None, description="seconds of a window; of a shot the most"
    )


class IndexRequest(VideoOptions):
    """Options of ``POST /videos``."""

    collection: CollectionName = "default"
    external_id: Name | None = None
    metadata: Metadata | None = None
    segments: Segmentation = Field(default_factory=Segmentation)


class VideoPatch(_Request):
    """Body of ``PATCH /videos/{id}``: a merge patch (RFC 7396); null removes a value."""

    external_id: Name | None = None
    metadata: Metadata | None = None


class CollectionRequest(_Request):
    """Body of ``POST /collections``."""

    name: CollectionName


class EmbeddingsRequest(_Request):
    """Body of ``POST /embeddings``, in the shape of OpenAI's endpoint."""

    input: str | VideoSource | Annotated[list[str | VideoSource], Field(min_length=1)]
    model: Name | None = None
    clip_weight: Weight | None = Field(
        default=None, validation_alias="lambda", serialization_alias="lambda"
    )
    modality: Literal["text", "video"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
