"""What a job that re-embeds collections is going to do; the request of the job."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from service.index.space import Space

KIND: Final = "reindex"


class ReindexPlan(BaseModel):
    """Which collections get vectors of which space.

    Attributes:
        model: name of the artefact.
        revision: of it.
        clip_weight: λ of the space, 4 decimals.
        dimensions: length of its vectors.
        collections: by name, done in this order.
        activate: each is searched in the space as soon as it is complete.
        keep: the vectors that were searched before stay.
        allow_incomplete: videos that cannot be embedded again do not hold the switch up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    clip_weight: float
    dimensions: int
    collections: tuple[str, ...]
    activate: bool = True
    keep: bool = True
    allow_incomplete: bool = False

    @property
    def space(self) -> Space:
        """The space that the collections get."""
        return Space(self.model, self.revision, self.clip_weight, self.dimensions)


def plan(space: Space, collections: tuple[str, ...], **options: bool) -> ReindexPlan:
    """Return the plan for a space; options as the attributes of the same names."""
    return ReindexPlan(
        model=space.name,
        revision=space.revision,
        clip_weight=space.clip_weight,
        dimensions=space.dimensions,
        collections=collections,
        **options,
    )
