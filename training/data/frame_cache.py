"""Decoded pictures of a small set of videos, in one file, for training that reads them often.

What it holds: of every video all pictures, or at most `pictures` of them spread evenly, as uint8
RGB, upright, the shorter side not above `shorter_side`; and the times of *all* pictures. A clip is
planned on all times and takes the nearest pictures held, so with all of them, and for videos that
are no larger than `shorter_side`, it is the same clip to the bit as from the file. Crops, mirrors
and colours stay random: they come afterwards.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.videoclip.clips import Plan
from service.videoclip.decoding import Limits
from service.videoclip.errors import VideoError
from service.videoclip.sampling import Timeline, Times, frames_on_screen
from training.data.annotations import LabelledVideo
from training.data.frame_cache_writing import (
    INDEX_FILE,
    PICTURES_FILE,
    FrameCacheError,
    write_frame_cache,
)

__all__ = ["DEFAULT_LIMIT_BYTES", "FrameCache", "FrameCacheError", "open_frame_cache"]

Pixels = NDArray[np.uint8]

DEFAULT_LIMIT_BYTES = 16 * 2**30
_FORMAT = 1  # of the files; another one makes other keys


class FrameCache:
    """A complete cache, read as a memory map; cheap to send to other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def failed(self) -> dict[Path, str]:
        """Videos that could not be decoded when the cache was written, and why."""
        return {Path(p): str(f) for p, f in zip(*self._texts, strict=True) if f}

    def pictures(self, path: Path, plan: Plan) -> list[Pixels]:
        """The pictures of one clip, each uint8 (h, w, 3): those on screen at the times of its plan.

        Raises VideoError for a video that could not be decoded, KeyError for one that is not here.
        """
        index, row = self._index, self._rows[str(path)]
        failure = str(self._texts[1][row])
        if failure:
            raise VideoError(failure)
        pts = index["pts"][slice(*index["pts_bounds"][row : row + 2])]
        held = index["held"][slice(*index["held_bounds"][row : row + 2])]
        timeline = Timeline(
            pts_seconds=pts,
            end_seconds=float(index["end_seconds"][row]),
            keyframe=np.ones(len(pts), dtype=bool),
        )
        wanted = pts[frames_on_screen(plan(timeline)[0], pts)]
        height, width = (int(side) for side in index["sizes"][row])
        first, count = int(index["offsets"][row]), len(held)
        stored = self._pixels[first : first + count * height * width * 3]
        pictures = stored.reshape(count, height, width, 3)
        return [pictures[place] for place in _nearest(pts[held], wanted)]

    def __getstate__(self) -> Path:
        return self._folder

    def __setstate__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _index(self) -> dict[str, NDArray[Any]]:
        with np.load(self._folder / INDEX_FILE, allow_pickle=False) as stored:
            return dict(stored)

    @cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        return self._index["paths"].tolist(), self._index["failures"].tolist()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._texts[0])}

    @cached_property
    def _pixels(self) -> Pixels:
        return np.memmap(self._folder / PICTURES_FILE, dtype=np.uint8, mode="r")


def open_frame_cache(
    folder: Path,
    videos: Sequence[LabelledVideo],
    *,
    shorter_side: int,
    pictures: int | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    processes: int = 1,
    limits: Limits | None = None,
) -> FrameCache:
    """The cache of these videos in `folder`; written first if it is not there.

    It is a folder of its own, named by a key of the files (path, size, time of change), the sizes
    asked for and the format: a changed file, list or setting makes another one. Several processes
    may call this at once; one writes, the others wait. Nothing of a writing that was cut off is
    taken for a cache.

    shorter_side: of the pictures held; augmentation wants 8/7 of the network's image size, or more.
    pictures: at most so many of each video; None for all. limit_bytes: of the file of pictures; how
    large it will be is measured before it is written. processes: that decode.
    Raises FrameCacheError when it would be above the limit, or above what the disk has left.
    """
    settings = {"format": _FORMAT, "shorter_side": shorter_side, "pictures": pictures}
    paths = list(dict.fromkeys(video.path for video in videos))
    if not paths:
        raise FrameCacheError("a cache of no videos")
    name = _key(paths, settings)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    with _locked(folder / f"{name}.lock"):
        if not target.exists():
            write_frame_cache(
                target,
                paths,
                shorter_side=shorter_side,
                at_most=pictures,
                limit_bytes=limit_bytes,
                processes=processes,
                limits=limits or Limits(),
            )
    return FrameCache(target)


def _key(paths: Sequence[Path], settings: dict[str, int | None]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{path}\0{state}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; a process that dies lets go."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _nearest(held: Times, wanted: Times) -> NDArray[np.int64]:
    """For each wanted time the held one that is nearest, the earlier of two. Both ascend."""
    after = np.clip(np.searchsorted(held, wanted), 0, len(held) - 1)
    before = np.maximum(after - 1, 0)
    earlier = wanted - held[before] <= held[after] - wanted
    return np.where(earlier, before, after)
