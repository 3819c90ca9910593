"""Shapes of requests that begin jobs, and of what changes which weights are served."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from service.schemas import (
    ClassifyRequest,
    CollectionName,
    Metadata,
    Name,
    RequestShape,
    Segmentation,
    SegmentOptions,
    Template,
    Url,
    Weight,
)


class LambdaFloor(RequestShape):
    """What a recommended lambda must reach, in percent."""

    metric: Literal["top1", "top5", "mean_class", "worst_class"] = "top1"
    at_least: Annotated[float, Field(ge=0.0, le=100.0)]


class LambdaRule(RequestShape):
    """Which lambda is recommended: the best, and of equals the larger, which forgets less."""

    maximise: Literal["top1", "top5", "mean_class"] = "top1"
    floor: LambdaFloor | None = None


class LabelledVideo(RequestShape):
    """A video of the index and what it shows."""

    id: Name
    label: str


JobEvent = Literal["job.succeeded", "job.failed", "job.cancelled"]


class WebhookOptions(RequestShape):
    """Who is told when a job has ended: signed, and tried again until it is taken."""

    url: Url
    events: Annotated[list[JobEvent], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: list(get_args(JobEvent))
    )


class JobOptions(RequestShape):
    """What jobs of all kinds may be given."""

    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        default=0, description="of jobs that wait those with the largest are begun first"
    )
    webhook: WebhookOptions | None = None


class LongClassifyRequest(JobOptions, ClassifyRequest):
    """Options of ``POST /classify/long``."""

    segments: SegmentOptions = Field(default_factory=SegmentOptions)

    @model_validator(mode="after")
    def _no_time_limit(self) -> Self:
        if self.timeout_s is not None:
            raise ValueError("timeout_s limits requests; a job takes its time")
        return self


class BatchVideo(RequestShape):
    """One video of ``POST /videos/batch``: a URL, or a video whose bytes are kept."""

    url: Url | None = None
    video_id: Name | None = None
    external_id: Name | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.video_id is None):
            raise ValueError("give either url or video_id")
        return self


class BatchOptions(RequestShape):
    """What all videos of a batch share; the options of ``POST /videos``."""

    collection: CollectionName = "default"
    segments: Segmentation = Field(default_factory=Segmentation)
    model: Name | None = Field(default=None, description="must be the model that is served")
    clip_weight: Weight | None = Field(
        default=None, validation_alias="lambda", serialization_alias="lambda"
    )
    videos: Annotated[list[BatchVideo], Field(min_length=1)]


class BatchRequest(JobOptions, BatchOptions):
    """Body of ``POST /videos/batch``."""


class ReindexOptions(JobOptions):
    """How collections are embedded again."""

    keep: bool = Field(
        default=True, description="keep the vectors that were searched before until `DELETE`"
    )
    allow_incomplete: bool = Field(
        default=False, description="switch without the videos that cannot be embedded again"
    )


Reindexing = Annotated[
    bool | ReindexOptions,
    Field(description="embed collections again, in the background, for what is served then"),
]


class LambdaRequest(RequestShape):
    """Body of ``PUT /lambda``."""

    clip_weight: Weight = Field(validation_alias="lambda", serialization_alias="lambda")
    model: Name | None = None
    reindex: Reindexing = False


class LambdaEvaluationOptions(JobOptions):
    """What ``POST /lambda/evaluate`` measures, whatever the videos come from."""

    lambdas: Annotated[list[Weight], Field(min_length=1, max_length=21)] | None = Field(
        default=None, description="default: 0, 0.1 … 1; for videos of the index: those there"
    )
    classes: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None, description="labels to choose from; default: those of the set"
    )
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    template_set: Name | None = None
    rule: LambdaRule = Field(default_factory=LambdaRule)
    model: Name | None = Field(default=None, description="must be the model that is served")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.templates is not None and self.template_set is not None:
            raise ValueError("templates and template_set exclude each other")
        return self


class LambdaEvaluationRequest(LambdaEvaluationOptions):
    """JSON body of ``POST /lambda/evaluate``: videos that are there already."""

    videos: Annotated[list[LabelledVideo], Field(min_length=1)] | None = Field(
        default=None, description="videos of the index, at the lambdas they were indexed at"
    )
    folder: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None, description="a folder below VTAG_EVALUATION_ROOT"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.videos is None) == (self.folder is None):
            raise ValueError("give either videos or folder, or send a form with files")
        return self
