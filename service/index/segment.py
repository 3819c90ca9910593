"""A time span of a video and its vector, as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.index.space import Space

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NewSegment:
    """A time span (seconds) and its vector, float32 (D,), unit length."""

    start_seconds: float
    end_seconds: float
    vector: Vector


@dataclass(frozen=True)
class Cut:
    """How a video of the index is cut, so that it can be embedded again in the same windows.

    Attributes:
        sha256: of its bytes.
        spans: start and end of each segment in seconds, in order.
    """

    sha256: str
    spans: tuple[tuple[float, float], ...]


def require_length(segments: Sequence[NewSegment], space: Space) -> None:
    """Refuse vectors that are none of the space, which the column itself would take.

    Raises:
        ValueError: a vector has another length.
    """
    for segment in segments:
        if segment.vector.shape != (space.dimensions,):
            raise ValueError(
                f"{space.id}: a vector of shape {segment.vector.shape}, not ({space.dimensions},)"
            )
