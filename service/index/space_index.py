"""What an index of videos does with embedding spaces, whatever holds its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from service.index.segment import Cut, NewSegment
from service.index.space import Space, SpaceContent


class SpaceIndex(Protocol):
    """Spaces of collections; all methods raise `IndexUnavailableError`."""

    async def spaces(self, *, collection: str | None = None) -> Sequence[SpaceContent]:
        """Return the spaces that hold vectors of a collection, or of all, with their sizes."""

    async def lacking(
        self, space: Space, *, collection: str, limit: int, after: str = ""
    ) -> Sequence[str]:
        """Return ids of videos that have vectors, but none in this space, in order.

        Raises:
            CollectionMissingError: there is no such collection.
        """

    async def complete(self, space: Space, *, collection: str) -> bool:
        """Tell whether every video of a collection that has vectors has some in this space."""

    async def remaining(self, space: Space, *, collection: str) -> tuple[int, int]:
        """Return how many videos lack this space, and how many segments these have."""

    async def activate(
        self, space: Space | None, *, collection: str, without: Sequence[str] = ()
    ) -> None:
        """Make a space the one that is searched when none is named, at once and for all services.

        None: that of the model and λ that a service serves. The look at what is missing and the
        switch are one step: no video comes in between.

        Args:
            space: to be searched.
            collection: in which.
            without: ids of videos that may lack the space.

        Raises:
            CollectionMissingError: there is no such collection.
            SpaceIncompleteError: a video has vectors, but none in this space.
        """

    async def active_space(self, collection: str) -> Space | None:
        """Return the space that is searched when none is named; None: that of the service.

        Raises:
            CollectionMissingError: there is no such collection.
        """

    async def pin(self, space: Space, *, collections: Sequence[str] | None = None) -> Sequence[str]:
        """Make collections that follow the service stay in a space, whatever is served later.

        That is `space` where they hold vectors of it, else the one that they hold most of; those
        without vectors follow on.

        Args:
            space: that is served.
            collections: which; None: all.

        Returns:
            Names of those that follow no more.
        """

    async def unpin(self, collections: Sequence[str]) -> None:
        """Make collections follow the service again."""

    async def cut(self, video_id: str) -> Cut | None:
        """Return how a video is cut in the active space, else in its newest; None: it is gone."""

    async def embed(self, video_id: str, *, space: Space, segments: Sequence[NewSegment]) -> bool:
        """Give a video of the index its segments in one more space; tell whether it needed them.

        False: it is gone, or has segments there.
        """

    async def remove_space(self, space: Space, *, collection: str) -> None:
        """Remove all vectors that a collection has in one space; its videos stay.

        Raises:
            CollectionMissingError: there is no such collection.
            SpaceInUseError: it is active.
        """
