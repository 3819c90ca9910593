"""Videos of a list as one array of frames: a decoded-frame cache for small sets."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling


@dataclass(frozen=True)
class DecodedSet:
    """A set in memory: ``frames`` uint8 (N, T, S, S, 3), ``labels`` int64 (N,), N captions."""

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    path: Path
    sampling: Sampling
    preprocessing: Preprocessing


def _decode(job: _Job) -> NDArray[np.uint8]:
    clip = decode_clips(
        job.path, sampling=job.sampling, preprocessing=job.preprocessing, limits=Limits()
    )
    return clip.pixels[0]


def decode_set(
    videos: Sequence[tuple[Path, int, str]],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    processes: int,
    title: str,
) -> DecodedSet:
    """Decode videos through the shared core, as the service does, with worker processes.

    Args:
        videos: path, label and caption of each, as ``files.read_list`` gives them.
        sampling: one view; how many and which frames.
        preprocessing: resize and crop; frames stay uint8.
        processes: decoding workers.
        title: of the progress bar.

    Raises:
        VideoError: a video cannot be decoded.
    """
    size = preprocessing.image_size
    frames = np.empty((len(videos), sampling.frames, size, size, 3), np.uint8)
    jobs = [_Job(path, sampling, preprocessing) for path, _, _ in videos]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        decoded = pool.imap(_decode, jobs, chunksize=16)
        for row, pixels in enumerate(tqdm(decoded, desc=title, total=len(jobs), unit="video")):
            frames[row] = pixels
    return DecodedSet(
        frames=frames,
        labels=np.array([label for _, label, _ in videos], np.int64),
        captions=tuple(caption for _, _, caption in videos),
    )
