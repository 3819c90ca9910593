"""Batches without end: the same ones for a seed, from any step on, on any number of processes."""

import multiprocessing
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.config import ConfigError
from training.data.dataset import Clip, FailedVideo, NoVideoDecodesError, VideoSource

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - not a file of ours: where torch puts tensors
_PREFETCHED = 2  # batches, for each worker


@dataclass(frozen=True, eq=False)
class RawBatch:
    """One rank's part of a batch, on the CPU.

    frames: uint8 (B, T, S, S, 3), RGB. labels: int64 (B,), positions in the classes; None for a
    source without classes. captions: B texts, None where a video has none; None altogether for a
    source in which no video has one. indices: int64 (B,), places in the list of videos. failed:
    videos that could not be decoded; others stand in their places. unlabelled: the same of the
    second source.
    """

    frames: Tensor
    labels: Tensor | None
    captions: tuple[str | None, ...] | None
    indices: Tensor
    failed: tuple[FailedVideo, ...] = ()
    unlabelled: "RawBatch | None" = None


def batches(
    source: VideoSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    unlabelled: VideoSource | None = None,
) -> Iterator[RawBatch]:
    """This rank's parts of the batches from `start_step` on; without end if `stop_step` is None.

    Clip number n of the run (n = step * batch_size + row) is place n % N in a random order of the N
    videos, another one for each pass; so batches reach over the end of a pass, none is partial, and
    every pass shows every video once. What is random about a clip depends on seed, pass and video
    alone. Rank r's part is rows r * batch_size / world and on: the parts of all ranks, one after
    the other, are the batch of one process.

    batch_size: of all ranks together. workers: processes that decode, for each rank; 0 decodes
    here, while the network waits. They change nothing but the time, and hold up to two batches
    each.
    unlabelled: a second source, with batches of the same size and its own passes and seeds
    (FitCLIP): the smaller one begins again before the larger one is through.

    Raises ConfigError when a batch cannot be shared out among the ranks or the workers' batches do
    not fit into shared memory, NoVideoDecodesError while iterating when no video can be decoded.
    """
    if batch_size < 1 or batch_size % world:
        raise ConfigError(f"batch_size = {batch_size}: not a multiple of {world} processes")
    streams = [_Stream(source, batch_size // world, 0)]
    if unlabelled is not None:
        streams.append(_Stream(unlabelled, batch_size // world, 1))
    steps = _Steps(streams, seed=seed, rank=rank, world=world)
    _require_shared_memory(streams, workers=workers)
    loader: DataLoader[RawBatch | str] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start_step, sys.maxsize if stop_step is None else stop_step),
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        # Forked processes would inherit the parent's threads' locks, and its CUDA context.
        multiprocessing_context=multiprocessing.get_context("spawn") if workers else None,
        # Else it would draw from torch's global generator.
        generator=torch.Generator(),
    )
    return _checked(loader)


@dataclass(frozen=True, eq=False)
class _Stream:
    source: VideoSource
    rows: int  # of this rank, in one batch
    number: int


class _Steps(Dataset[RawBatch | str]):
    """Step -> this rank's part of its batch; or why there is none, in one line.

    An error that is raised in a worker arrives as a page of traceback, so it is returned.
    """

    def __init__(self, streams: Sequence[_Stream], *, seed: int, rank: int, world: int) -> None:
        self._streams = streams
        self._seed, self._rank, self._world = seed, rank, world
        self._orders: OrderedDict[tuple[int, int], NDArray[np.int64]] = OrderedDict()

    def __getitem__(self, step: int) -> RawBatch | str:
        try:
            first, *others = (self._part(stream, step) for stream in self._streams)
        except NoVideoDecodesError as error:
            return str(error)
        return replace(first, unlabelled=others[0]) if others else first

    def _part(self, stream: _Stream, step: int) -> RawBatch:
        source = stream.source
        first = (step * self._world + self._rank) * stream.rows
        clips: list[Clip] = []
        for number in range(first, first + stream.rows):
            epoch, place = divmod(number, len(source))
            index = int(self._order(stream, epoch)[place])
            clips.append(source.clip(index, seed=self._seed, stream=stream.number, epoch=epoch))
        return RawBatch(
            frames=torch.from_numpy(np.stack([clip.pixels for clip in clips])),
            labels=None if source.classes is None else torch.tensor([c.label for c in clips]),
            captions=tuple(clip.caption for clip in clips) if source.captioned else None,
            indices=torch.tensor([clip.index for clip in clips]),
            failed=tuple(dict.fromkeys(video for clip in clips for video in clip.failed)),
        )

    def _order(self, stream: _Stream, epoch: int) -> NDArray[np.int64]:
        key = (stream.number, epoch)
        if key not in self._orders:
            self._orders[key] = stream.source.order(
                seed=self._seed, stream=stream.number, epoch=epoch
            )
            while len(self._orders) > 2 * len(self._streams):
                self._orders.popitem(last=False)
        return self._orders[key]


def _checked(loader: DataLoader[RawBatch | str]) -> Iterator[RawBatch]:
    for item in loader:
        if isinstance(item, str):
            raise NoVideoDecodesError(item)
        yield item


def _require_shared_memory(streams: Sequence[_Stream], *, workers: int) -> None:
    """Finished batches wait in shared memory; without room there a process is killed."""
    if not workers or not _SHARED_MEMORY.is_dir():
        return
    one = sum(s.rows * s.source.sampling.frames * s.source.picture_bytes for s in streams)
    needed, free = (_PREFETCHED * workers + 1) * one, shutil.disk_usage(_SHARED_MEMORY).free
    if needed > free:
        raise ConfigError(
            f"workers = {workers}: batches of {one / 2**20:.0f} MiB take {needed / 2**20:.0f} MiB "
            f"of {_SHARED_MEMORY}, which has {free / 2**20:.0f}: fewer workers, or more of it "
            "(docker run --shm-size)"
        )
