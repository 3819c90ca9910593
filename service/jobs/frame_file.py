"""Decoded frames of many videos in one file, so that each video is decoded once for all λ."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt


class FrameFile:
    """Clips of uint8 pixels, one video after another; all of one shape. Blocks: use in threads.

    Args:
        path: of the file; what was there is dropped.
        shape: (views, T, S, S, 3) of one video.
    """

    def __init__(self, path: Path, *, shape: tuple[int, ...]) -> None:
        self._path = path
        self._shape = shape
        self.videos = 0
        """How many are in it."""
        path.write_bytes(b"")

    @property
    def video_bytes(self) -> int:
        """Bytes of one video."""
        return prod(self._shape)

    def append(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add the clips of one video, uint8 of the shape given above."""
        if pixels.shape != self._shape:
            raise ValueError(f"clips of shape {pixels.shape}, not {self._shape}")
        with self._path.open("ab") as stream:
            stream.write(np.ascontiguousarray(pixels).data)
        self.videos += 1

    def read(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """Return the clips of videos `first` to `last`, uint8 ((last - first) · views, T, S, S, 3).

        Raises:
            ValueError: there are fewer videos.
        """
        if not 0 <= first <= last <= self.videos:
            raise ValueError(f"videos {first} to {last} of {self.videos}")
        count = (last - first) * self.video_bytes
        found = np.fromfile(self._path, np.uint8, count=count, offset=first * self.video_bytes)
        return found.reshape(-1, *self._shape[1:])
