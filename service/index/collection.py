"""Named sets of videos."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.index.space import Space, SpaceContent

DEFAULT_COLLECTION: Final = "default"
"""It is always there."""


class CollectionMissingError(Exception):
    """There is no collection of this name."""


class SpaceIncompleteError(Exception):
    """Videos of the collection have no vectors in this space."""


class SpaceInUseError(Exception):
    """The space is the active one of the collection."""


class CollectionExistsError(Exception):
    """There is a collection of this name already."""


@dataclass(frozen=True)
class Collection:
    """A named set of videos.

    Attributes:
        videos: how many, in whatever spaces.
        contents: what it holds in each space that it has vectors of.
        active: the space that is searched when none is named; None: that of the service.
    """

    name: str
    created_at: datetime
    videos: int
    contents: tuple[SpaceContent, ...]
    active: Space | None = None
