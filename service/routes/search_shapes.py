"""Shapes of searches: what is looked for, and what of the index may be found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictFloat,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from service.schemas import (
    CollectionName,
    Key,
    Name,
    RequestShape,
    Scalar,
    Template,
    Text,
    Time,
    Weight,
)

_MAX_CONDITIONS = 16
_FIRST_YEAR, _LAST_YEAR = 1900, 9000  # no zone takes these out of what a database holds
_MAX_CHOICES = 100
_MAX_PARTS = 16

QueryText = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


def _moment(text: object) -> datetime:
    # Read here: what is checked strictly would have to be a datetime already.
    if not isinstance(text, str):
        raise ValueError("must be a text like 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time of day like 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("must have a zone, such as Z or +01:00")
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"must be between the years {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment.astimezone(UTC)


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Bound = Annotated[StrictInt, Field(ge=-(2**53), le=2**53)] | StrictFloat | Text


class MetadataCondition(RequestShape):
    """What the value of one key has to be; everything that is given has to hold."""

    eq: Scalar = Field(default=None, description="of the same type; numbers as numbers")
    one_of: Annotated[list[Scalar], Field(min_length=1, max_length=_MAX_CHOICES)] | None = Field(
        default=None, validation_alias="in", serialization_alias="in"
    )
    gte: Bound | None = Field(default=None, description="numbers, or texts by code points")
    gt: Bound | None = None
    lte: Bound | None = None
    lt: Bound | None = None
    exists: bool | None = Field(default=None, description="with whatever value, null too")

    @model_validator(mode="after")
    def _of_one_type(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give at least one of eq, in, gte, gt, lte, lt, exists")
        bounds = [each for each in (self.gte, self.gt, self.lte, self.lt) if each is not None]
        if len({isinstance(each, str) for each in bounds}) > 1:
            raise ValueError("bounds are all numbers or all texts")
        return self


class CreatedRange(RequestShape):
    """When a video was indexed; RFC 3339 with a zone."""

    since: Moment | None = Field(
        default=None, validation_alias="from", serialization_alias="from", description="or later"
    )
    before: Moment | None = None

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.since is None and self.before is None:
            raise ValueError("give from, before or both")
        return self


class TimeRange(RequestShape):
    """Seconds of a video; segments that overlap it are found."""

    start: Time | None = None
    end: Time | None = None

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.start is None and self.end is None:
            raise ValueError("give start, end or both")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("start must be before end")
        return self


class SearchFilter(RequestShape):
    """What may be found; everything that is given has to hold."""

    metadata: (
        Annotated[
            dict[Key, MetadataCondition | Scalar],
            Field(min_length=1, max_length=_MAX_CONDITIONS),
        ]
        | None
    ) = Field(default=None, description="key -> value or condition")
    external_id: (
        Name | Annotated[list[Name], Field(min_length=1, max_length=_MAX_CHOICES)] | None
    ) = Field(default=None, description="one, or one of several")
    created: CreatedRange | None = None
    time: TimeRange | None = None

    @model_validator(mode="after")
    def _given(self) -> Self:
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("give at least one of metadata, external_id, created, time")
        return self


class QueryMedia(RequestShape):
    """A picture or a video that is sent with the request."""

    type: Literal["base64", "url", "file"]
    data: str | None = Field(default=None, description="standard, padded base64, for type base64")
    url: str | None = None
    name: Name | None = Field(default=None, description="of a file of the form, for type file")

    @model_validator(mode="after")
    def _given(self) -> Self:
        given = {"base64": self.data, "url": self.url, "file": self.name}
        if [kind for kind, value in given.items() if value is not None] != [self.type]:
            raise ValueError("base64 goes with data, url with url, file with name, and no more")
        return self


class QuerySource(RequestShape):
    """One thing that can be looked for; exactly one is given."""

    text: QueryText | None = None
    embedding: Annotated[list[float], Field(min_length=1, max_length=65536)] | None = Field(
        default=None, description="of the space that is searched; its length does not matter"
    )
    video_id: Name | None = Field(
        default=None, description="a video of the index, which is then not among the hits"
    )
    image: QueryMedia | None = Field(default=None, description="JPEG, PNG or WebP")
    video: QueryMedia | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.sources()) != 1:
            names = ", ".join(self._names())
            raise ValueError(f"give exactly one of {names}")
        return self

    def sources(self) -> list[str]:
        """Names of the sources that are given."""
        return [name for name in self._names() if getattr(self, name) is not None]

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return ("text", "embedding", "video_id", "image", "video")


class QueryPart(QuerySource):
    """A part of a query. All parts have unit length before they are weighted and added."""

    subtract: bool = Field(
        default=False,
        validation_alias="not",
        serialization_alias="not",
        description="taken away from the sum instead of added to it",
    )
    weight: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="1; of a part with not 0.5"
    )


class Query(QuerySource):
    """What is searched for: one thing, or several together."""

    parts: Annotated[list[QueryPart], Field(min_length=1, max_length=_MAX_PARTS)] | None = None

    @model_validator(mode="after")
    def _something_is_added(self) -> Self:
        if self.parts is not None and all(part.subtract for part in self.parts):
            raise ValueError("at least one of parts is without not")
        return self

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return (*super()._names(), "parts")


class SearchOptions(RequestShape):
    """What searches say beside the query."""

    collection: CollectionName = "default"
    clip_weight: Weight | None = Field(
        default=None, validation_alias="lambda", serialization_alias="lambda"
    )
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    filter: SearchFilter | None = None
    top_k: Annotated[int, Field(ge=1, le=1000)] = 10
    group_by: Literal["video", "segment"] = "video"
    per_video: Annotated[int, Field(ge=1, le=100)] = 3
    min_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=500_000)] | None = Field(
        default=None,
        description="`next_cursor` of an answer to this very request; only top_k may differ",
    )


class SearchRequest(SearchOptions):
    """Body of ``POST /search``."""

    query: QueryText | Query


class SearchForm(SearchOptions):
    """Options of ``POST /search`` as a form; its files ``image`` and ``video`` are parts, too."""

    query: QueryText | Query | None = None
