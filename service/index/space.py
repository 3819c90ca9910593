"""Embedding spaces, as the index knows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Space:
    """An embedding space: vectors of two spaces are never compared.

    Attributes:
        clip_weight: share of the original CLIP weights, rounded to 4 decimals.
        dimensions: length of its vectors.
    """

    name: str
    revision: str
    clip_weight: float
    dimensions: int

    @property
    def id(self) -> str:
        """The space as one word, such as ``demo@1a2b3c4d5e6f/0.4``."""
        return f"{self.name}@{self.revision}/{self.clip_weight:g}"


@dataclass(frozen=True)
class SpaceContent:
    """How much of a space is in the index.

    Attributes:
        active: a search of this collection that names no space goes here.
    """

    space: Space
    videos: int
    segments: int
    active: bool = False
