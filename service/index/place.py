"""Where vectors are that can be compared with each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The vectors of one collection in one space, by their numbers in the database.

    Attributes:
        dimensions: length of each vector.
        videos: that have some.
        segments: one vector each.
        has_graph: whether searches can go through a graph.
    """

    collection_id: int
    space_id: int
    dimensions: int
    videos: int
    segments: int
    has_graph: bool
