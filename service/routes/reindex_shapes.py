"""Shapes of requests and answers about the embedding spaces of collections."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from service.routes.shapes import Answer, SpaceAnswer
from service.schemas import Name, RequestShape, Weight
from service.schemas_jobs import Reindexing, ReindexOptions


class ReindexRequest(ReindexOptions):
    """Body of ``POST /collections/{name}/reindex``."""

    clip_weight: Weight | None = Field(
        default=None,
        validation_alias="lambda",
        serialization_alias="lambda",
        description="default: the one that is served",
    )
    activate: bool = Field(
        default=True, description="false: the collection gets one more space, and stays where it is"
    )

    @model_validator(mode="after")
    def _something_to_search(self) -> Self:
        if not self.keep and not self.activate:
            raise ValueError("keep false goes with activate: something must be left to search")
        return self


class ActivationRequest(RequestShape):
    """Body of ``POST /models/{name}/{revision}/activate``; may be left out."""

    reindex: Reindexing = False


class SpaceChoice(RequestShape):
    """Body of ``POST /collections/{name}/activate``: one of the two."""

    space: Name | None = Field(default=None, description="such as demo@259c4dca6d67/0.6")
    clip_weight: Weight | None = Field(
        default=None,
        validation_alias="lambda",
        serialization_alias="lambda",
        description="of the model that is served",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.space is None) == (self.clip_weight is None):
            raise ValueError("give either space or lambda")
        return self


class CollectionSpaceAnswer(SpaceAnswer):
    """What a collection holds in one space."""

    active: bool = Field(description="searched when no lambda is named")
    complete: bool = Field(description="no video lacks it, so it can be activated")


class CollectionAnswer(Answer):
    """A named set of videos."""

    name: str
    created_at: datetime
    videos: int
    active_space: str | None = Field(
        description="searched when no lambda is named; null: that of the model that is served"
    )
    spaces: list[CollectionSpaceAnswer]


class CollectionPage(Answer):
    """All collections."""

    data: list[CollectionAnswer]
