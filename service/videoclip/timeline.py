"""When the pictures of a video are on screen. All times are seconds since its first picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the pictures of a video are on screen.

    Attributes:
        pts_seconds: float64 (N,), N >= 1, ascending; the first is 0.
        end_seconds: when the last picture leaves the screen; above the last of `pts_seconds`.
        keyframe: bool (N,), pictures that can be decoded on their own.
    """

    pts_seconds: Times
    end_seconds: float
    keyframe: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check what the attributes promise."""
        count = len(self.pts_seconds)
        if count == 0 or self.keyframe.shape != (count,):
            raise ValueError(f"timeline: {count} times, keyframe of shape {self.keyframe.shape}")
        if self.pts_seconds[0] != 0 or np.any(np.diff(self.pts_seconds) < 0):
            raise ValueError("timeline: times must start at 0 and ascend")
        if not self.end_seconds > self.pts_seconds[-1]:
            raise ValueError(
                f"timeline: end {self.end_seconds} is not after {self.pts_seconds[-1]}"
            )

    @property
    def frame_seconds(self) -> float:
        """Mean time for which a picture is on screen."""
        return self.end_seconds / len(self.pts_seconds)


def frames_on_screen(times: Times, pts: Times) -> NDArray[np.int64]:
    """The picture that is on screen at each time: the last one with ``pts <= time``.

    A time before the first picture gets the first.

    Args:
        times: float64, any shape.
        pts: float64 (N,), N >= 1, ascending.

    Returns:
        int64 indices into `pts`, shaped like `times`.
    """
    if len(pts) == 0:
        raise ValueError("pts: there is no picture")
    indices = np.searchsorted(pts, times, side="right") - 1
    return np.maximum(indices, 0).astype(np.int64)
