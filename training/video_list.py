"""Lists of labelled video files, and their decoding through the shared core."""

import csv
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


class VideoListError(ValueError):
    """A list that cannot be used; names the file, and the line where there is one."""


@dataclass(frozen=True)
class LabelledVideo:
    """One video file and its label, in words."""

    path: Path
    label: str


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


def read_video_list(path: Path) -> list[LabelledVideo]:
    """Read a CSV file with the columns `path` and `label`, or a folder with one folder a class.

    Paths in the file are relative to it. Label names are words; other columns are ignored. Raises
    VideoListError when there is nothing, a column is missing or a field is empty.
    """
    if path.is_dir():
        videos = [
            LabelledVideo(path=file, label=folder.name)
            for folder in sorted(path.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for file in sorted(folder.iterdir())
            if file.is_file() and not file.name.startswith(".")
        ]
    else:
        videos = _read_csv(path)
    if not videos:
        raise VideoListError(f"{path}: holds no videos")
    return videos


def classes_of(videos: Sequence[LabelledVideo]) -> tuple[str, ...]:
    """The different labels, sorted by name."""
    return tuple(sorted({video.label for video in videos}))


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
                labels.append(video.label)
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


def _read_csv(path: Path) -> list[LabelledVideo]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise VideoListError(f"{path}: the column {sorted(missing)[0]!r} is missing")
            videos = []
            for row in reader:
                if not row["path"] or not row["label"]:
                    raise VideoListError(f"{path}, line {reader.line_num}: path or label is empty")
                videos.append(LabelledVideo(path=path.parent / row["path"], label=row["label"]))
    except OSError as error:
        raise VideoListError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise VideoListError(f"{path}: not a CSV file in UTF-8: {error}") from error
    return videos
