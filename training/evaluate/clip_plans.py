"""When a model that is measured looks at a video: its own clips, or several sparse ones.

A sparse clip reaches over the whole video, so that a second one shows other moments of the same
parts. No manifest has such views: they are for measuring "4x3 views", not for serving.
"""

import zlib
from functools import partial

import numpy as np

from service.videoclip.clips import Plan
from service.videoclip.manifest import Sampling
from service.videoclip.sampling import Timeline, Times, plan, segment_times

#: Of sparse views. ViFi-CLIP's code has none: its figures change from run to run.
SEED = 0


def clip_plan(sampling: Sampling, *, sparse_views: int, name: str) -> Plan:
    """The times of one video's clips: its timeline -> float64 (V, T).

    sampling: the model's. sparse_views: 1 for its own clips; else so many sparse ones in their
    place. name: of the video's file, whose moments they are, wherever it lies.
    """
    if sparse_views == 1:
        return partial(plan, sampling)
    return partial(_sparse, views=sparse_views, frames=sampling.frames, name=name)


def sparse_times(
    start_seconds: float, end_seconds: float, *, views: int, frames: int, name: str
) -> Times:
    """`views` clips, each of one random moment in each of `frames` equal parts of [start, end).

    ViFi-CLIP's training clips, with which it measures several views; drawn by `SEED` and `name`, so
    the same again on every machine, and the first of many views are those of fewer. Returns float64
    (views, frames), rows ascending, in [start, end). Raises ValueError for fewer than one view or
    frame, or unless start < end.
    """
    if views < 1:
        raise ValueError(f"views: {views} is below 1")
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    shares = rng.random((views, frames))
    return np.stack([segment_times(start_seconds, end_seconds, shares=row) for row in shares])


def _sparse(timeline: Timeline, *, views: int, frames: int, name: str) -> Times:
    return sparse_times(0.0, timeline.end_seconds, views=views, frames=frames, name=name)
