"""The embedding space: which weights made a vector. Vectors of two spaces are never compared."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EmbeddingSpace:
    """One artefact at one λ.

    Attributes:
        name: the artefact.
        revision: its revision, 12 hex digits.
        clip_weight: λ, the share of the original CLIP, in [0, 1], 4 decimals.
        precision: what the network computes with; a published variant stays so close to float32
            that it shares its space, so it is no part of `id`.
    """

    name: str
    revision: str
    clip_weight: float
    precision: str = "float32"

    @property
    def id(self) -> str:
        """Name of the space, for example `demo@1a2b3c4d5e6f/0.4`."""
        return f"{self.name}@{self.revision}/{self.clip_weight:g}"


@dataclass(frozen=True)
class Encoded:
    """Embeddings and the weights that made them.

    Attributes:
        vectors: float32 (clips, T, D) of frames or (n, D) of texts; finite, not normalised.
        clip_weight: λ of the weights.
        logit_scale: scale of the logits at this λ.
    """

    vectors: npt.NDArray[np.float32]
    clip_weight: float
    logit_scale: float


def round_clip_weight(value: float) -> float:
    """Return `value` rounded to the 4 decimals that make a space.

    Raises:
        ValueError: not a finite number in [0, 1].
    """
    if not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"clip_weight={value}: must be a number from 0 to 1")
    return round(float(value), 4)
