"""The embedding space: which weights made a vector. Vectors of two spaces are never compared."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingSpace:
    """One artefact at one λ.

    Attributes:
        name: the artefact.
        revision: its revision, 12 hex digits.
        clip_weight: λ, the share of the original CLIP, in [0, 1], 4 decimals.
    """

    name: str
    revision: str
    clip_weight: float

    @property
    def id(self) -> str:
        """Name of the space, for example `demo@1a2b3c4d5e6f/0.4`."""
        return f"{self.name}@{self.revision}/{self.clip_weight:g}"


def round_clip_weight(value: float) -> float:
    """Return `value` rounded to the 4 decimals that make a space.

    Raises:
        ValueError: not a finite number in [0, 1].
    """
    if not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"clip_weight={value}: must be a number from 0 to 1")
    return round(float(value), 4)
