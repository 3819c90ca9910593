"""Write a `training.data.frame_cache`: measure all videos, check the room, decode."""

import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.errors import VideoError
from service.videoclip.sampling import Timeline, Times, frames_on_screen, uniform_times
from training.errors import Refusal

Pixels = NDArray[np.uint8]
S = TypeVar("S")
T = TypeVar("T")

PICTURES_FILE = "pictures.u8"
INDEX_FILE = "index.npz"


class FrameCacheError(Refusal):
    """The cache would be too large; says how large, and what would fit."""


@dataclass(frozen=True)
class _Measured:
    """One video: pts float64 (n,), its end, and the size of a picture held. Or why it has none."""

    pts_seconds: Times
    end_seconds: float
    height: int
    width: int
    failure: str = ""


def write_frame_cache(
    target: Path,
    paths: Sequence[Path],
    *,
    shorter_side: int,
    at_most: int | None,
    limit_bytes: int,
    processes: int,
    limits: Limits,
) -> None:
    """Write the folder `target`, complete or not at all; see `open_frame_cache` for the rest.

    The caller sees to it that nobody else writes it. What a writing that was killed left of it is
    removed.

    What it holds: ``pictures.u8``, the pictures of one video after the other, and ``index.npz``:
    paths, failures (empty for videos that could be decoded), offsets into the pictures, sizes
    (height, width), end_seconds; pts, the times of all pictures, and held, the numbers of those
    that are here, with the bounds of each video's part.
    """
    _remove_rests(target)
    measure = partial(_measure, shorter_side=shorter_side, limits=limits)
    measured = list(_each(measure, paths, processes=processes, title="measure videos"))
    held = [_held(each, at_most) for each in measured]
    picture_bytes = np.array([each.height * each.width * 3 for each in measured], dtype=np.int64)
    sizes = picture_bytes * [len(numbers) for numbers in held]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    free = shutil.disk_usage(target.parent).free
    _require_room(
        int(offsets[-1]), picture_bytes, videos=len(paths), limit_bytes=limit_bytes, free=free,
        folder=target.parent,
    )  # fmt: skip
    temporary = Path(mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        with (temporary / PICTURES_FILE).open("wb") as file:
            file.truncate(max(int(offsets[-1]), 1))  # a memory map of nothing cannot be opened
        jobs = [
            _Job(path, temporary / PICTURES_FILE, int(offset), each.pts_seconds[numbers])
            for path, offset, each, numbers in zip(paths, offsets, measured, held, strict=False)
            if not each.failure
        ]
        store = partial(_store, shorter_side=shorter_side, limits=limits)
        reasons = dict(_each(store, jobs, processes=processes, title="decode videos"))
        np.savez(
            temporary / INDEX_FILE,
            paths=np.array([str(path) for path in paths]),
            failures=np.array(
                [m.failure or reasons[p] for p, m in zip(paths, measured, strict=True)]
            ),
            offsets=offsets[:-1],
            sizes=np.array([(m.height, m.width) for m in measured], dtype=np.int64),
            end_seconds=np.array([m.end_seconds for m in measured]),
            pts=np.concatenate([m.pts_seconds for m in measured]),
            pts_bounds=_bounds(len(m.pts_seconds) for m in measured),
            held=np.concatenate(held),
            held_bounds=_bounds(len(numbers) for numbers in held),
        )
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_rests(target: Path) -> None:
    """Pictures are gigabytes: a kill -9 must not keep them for ever."""
    for rest in target.parent.glob(f"{target.name}.*"):
        if rest.is_dir():
            shutil.rmtree(rest)


def _require_room(
    needed: int,
    picture_bytes: NDArray[np.int64],
    *,
    videos: int,
    limit_bytes: int,
    free: int,
    folder: Path,
) -> None:
    room = min(limit_bytes, free)
    if needed <= room:
        return
    which = "the limit" if limit_bytes <= free else f"what is free in {folder}"
    fitting = room // max(int(picture_bytes.sum()), 1)
    hint = f"at most {fitting} pictures of each video would fit" if fitting else "nothing would fit"
    raise FrameCacheError(
        f"a cache of {videos} videos takes {_size(needed)}, and {which} is {_size(room)}; {hint}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _measure(path: Path, *, shorter_side: int, limits: Limits) -> _Measured:
    seen: list[Timeline] = []

    def plan(timeline: Timeline) -> Times:
        seen.append(timeline)
        return np.zeros((1, 1))

    try:
        clip = decode_planned(
            path, plan=plan, shape=partial(_shrink, shorter_side=shorter_side), limits=limits
        )
    except (VideoError, OSError) as error:
        return _Measured(np.empty(0), 0.0, 0, 0, failure=_reason(error))
    height, width = clip.pixels.shape[2:4]
    return _Measured(seen[-1].pts_seconds, seen[-1].end_seconds, height, width)


def _held(measured: _Measured, at_most: int | None) -> NDArray[np.int64]:
    """Numbers of the pictures to hold."""
    count = len(measured.pts_seconds)
    if at_most is None or count <= at_most:
        return np.arange(count, dtype=np.int64)
    times = uniform_times(0.0, measured.end_seconds, frames=at_most)
    return np.unique(frames_on_screen(times, measured.pts_seconds))


@dataclass(frozen=True, eq=False)
class _Job:
    path: Path
    file: Path
    offset: int
    times: Times


def _store(job: _Job, *, shorter_side: int, limits: Limits) -> tuple[Path, str]:
    """Write the pictures of one video; returns why that was not possible, or nothing."""
    try:
        clip = decode_planned(
            job.path,
            plan=lambda _: job.times[None],
            shape=partial(_shrink, shorter_side=shorter_side),
            limits=limits,
        )
    except (VideoError, OSError) as error:
        return job.path, _reason(error)
    pixels = clip.pixels.reshape(-1)
    out = np.memmap(job.file, dtype=np.uint8, mode="r+", offset=job.offset, shape=pixels.shape)
    out[:] = pixels
    return job.path, ""


def _shrink(rgb: Pixels, *, shorter_side: int) -> Pixels:
    """The whole picture, not enlarged. uint8 (H, W, 3) -> (h, w, 3)."""
    height, width, _ = rgb.shape
    if min(height, width) <= shorter_side:
        return rgb
    scale = shorter_side / min(height, width)
    size = (max(round(width * scale), shorter_side), max(round(height * scale), shorter_side))
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _reason(error: VideoError | OSError) -> str:
    if isinstance(error, VideoError):
        return error.detail
    return error.strerror or type(error).__name__


def _bounds(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _each(work: Callable[[S], T], items: Sequence[S], *, processes: int, title: str) -> Iterator[T]:
    """Results in the order of the items, with a progress bar."""
    with tqdm(total=len(items), desc=title, unit="video") as bar:
        if processes <= 1:
            for item in items:
                yield work(item)
                bar.update()
            return
        chunk = max(1, min(16, math.ceil(len(items) / processes / 4)))
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for result in pool.imap(work, items, chunksize=chunk):
                yield result
                bar.update()
