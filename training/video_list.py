"""Videos of a list, decoded into memory as the service would decode them."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing, Sampling
from training.data.annotations import LabelledVideo, VideoListError


@dataclass(frozen=True, eq=False)
class DecodedVideos:
    """Frames of those videos that could be decoded, in the order of the list.

    frames: uint8 (n, views, T, S, S, 3). labels: n labels in words. failed: the others, with the
    reason.
    """

    frames: NDArray[np.uint8]
    labels: tuple[str, ...]
    failed: tuple[tuple[Path, str], ...]

    def label_ids(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Positions of the labels in `classes`, matched by name. Raises ValueError for others."""
        position = {name: i for i, name in enumerate(classes)}
        unknown = sorted(set(self.labels) - set(position))
        if unknown:
            raise ValueError(f"labels that are none of the {len(classes)} classes: {unknown[:5]}")
        return np.array([position[label] for label in self.labels], dtype=np.int64)


def decode_videos(
    videos: Sequence[LabelledVideo],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    threads: int = 2,
    on_video: Callable[[], None] | None = None,
) -> DecodedVideos:
    """Decode all videos into one array, as the service would.

    The decoder leaves the interpreter lock, so threads help. A video that cannot be decoded is
    reported in `failed`. Raises VideoListError when none can, or when the frames would not fit into
    the machine's memory.
    """

    def decode(video: LabelledVideo) -> NDArray[np.uint8] | str:
        try:
            clip = decode_clips(
                video.path, sampling=sampling, preprocessing=preprocessing, limits=Limits()
            )
        except (VideoError, OSError) as error:
            return f"{error}"
        finally:
            if on_video is not None:
                on_video()
        return clip.pixels

    size = preprocessing.image_size
    shape = (len(videos), sampling.views, sampling.frames, size, size, 3)
    _require_memory(math.prod(shape), videos=len(videos))
    frames = np.empty(shape, dtype=np.uint8)
    labels: list[str] = []
    failed: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for video, result in zip(videos, pool.map(decode, videos), strict=True):
            if isinstance(result, str):
                failed.append((video.path, result))
            else:
                frames[len(labels)] = result
                labels.append(video.class_name)
    if not labels:
        path, reason = failed[0]
        raise VideoListError(f"none of {len(videos)} videos can be decoded; {path}: {reason}")
    return DecodedVideos(frames=frames[: len(labels)], labels=tuple(labels), failed=tuple(failed))


def _require_memory(needed_bytes: int, *, videos: int) -> None:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed_bytes > memory_bytes:
        raise VideoListError(
            f"the frames of {videos} videos take {needed_bytes / 2**30:.1f} GiB, and this machine "
            f"has {memory_bytes / 2**30:.1f} GiB of memory; decoded clips are held in memory"
        )
