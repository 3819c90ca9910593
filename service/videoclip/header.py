"""What a file says about its video before any packet of it is read: quick, and not to be trusted.

Enough to refuse what can never be accepted and to guess what decoding will cost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from service.videoclip.source import Limits, OpenVideo, VideoFile, open_video

# More entries of an index than this tell nothing new about how far apart key pictures are.
_ENTRIES = 5000


@dataclass(frozen=True)
class VideoHeader:
    """What the container's header claims.

    Attributes:
        codec: name of the decoder.
        width: pixels as stored.
        height: pixels as stored.
        duration_seconds: None: not stated.
        fps: pictures per second; None: not stated.
        key_seconds: how long the group of pictures is, on average, that a random moment lies in;
            None: the file has no index.
        size_bytes: of the file.
    """

    codec: str
    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    key_seconds: float | None
    size_bytes: int


def read_header(file: VideoFile, *, limits: Limits) -> VideoHeader:
    """Read the header of `file`. Decodes nothing of ours.

    Raises:
        VideoError: as `open_video`.
        OSError: the file cannot be read at all.
    """
    status = os.fstat(file) if isinstance(file, int) else file.stat()
    with open_video(file, limits=limits) as video:
        rate = video.stream.average_rate or video.stream.guessed_rate
        return VideoHeader(
            codec=video.decoder.name,
            width=video.decoder.width,
            height=video.decoder.height,
            duration_seconds=video.header_seconds,
            fps=float(rate) if rate else None,
            key_seconds=_key_seconds(video),
            size_bytes=status.st_size,
        )


def _key_seconds(video: OpenVideo) -> float | None:
    entries = video.stream.index_entries
    if len(entries) < 2:
        try:
            # Matroska reads its index when it is first asked to seek.
            video.container.seek(0, stream=video.stream, backward=True)
        except av.FFmpegError:
            return None
    count = min(len(entries), _ENTRIES)
    found = [entries[number] for number in range(count)]
    if count < 2:
        return None
    keys = np.array([entry.timestamp for entry in found if entry.is_keyframe], dtype=np.float64)
    seconds = keys * float(video.time_base)
    if len(seconds) and len(entries) == count and video.header_seconds is not None:
        seconds = np.append(seconds, seconds[0] + video.header_seconds)  # the last group's end
    return mean_group_seconds(seconds)


def mean_group_seconds(borders: NDArray[np.float64]) -> float | None:
    """How long the group is, on average, that a random moment lies in.

    Args:
        borders: float64 (N,), ascending, when groups begin, and when the last one ends.

    Returns:
        Seconds; long groups hold more moments than short ones. None: there is no group.
    """
    steps = np.diff(borders)
    steps = steps[steps > 0]
    return float(np.sum(steps**2) / np.sum(steps)) if len(steps) else None
