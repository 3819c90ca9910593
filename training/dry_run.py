"""What a run will cost, from a few real steps on random frames."""

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from training import distributed
from training.data.batches import RawBatch
from training.prepared_run import PreparedRun, prepare
from training.recipe import Batch
from training.run_config import RunConfig

# The first step allocates and plans; it is left out of the time.
_WARM_UP_STEPS = 1
_TIMED_STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """parameters, trained: of network and recipe. state_bytes: what training holds for them, by
    name. peak_bytes: of the graphics card's memory, or of the process's. seconds_per_step: without
    decoding. clip_seconds: to decode one clip in one process; None when the first videos of the
    list cannot be decoded. cached_videos: how many go into the cache before the first step; 0
    without one.
    """

    device: str
    processes: int
    precision: str
    parameters: int
    trained: int
    state_bytes: dict[str, int]
    peak_bytes: int
    steps: int
    videos: int
    clips_per_step: int
    workers: int
    seconds_per_step: float
    clip_seconds: float | None
    cached_videos: int = 0

    @property
    def decoding_seconds_per_step(self) -> float:
        """How long the workers need for a step's clips; training waits if that is longer."""
        return (self.clip_seconds or 0.0) * self.clips_per_step / max(1, self.workers)

    @property
    def caching_seconds(self) -> float:
        """How long it takes to fill the cache: at least a clip's time for each video."""
        return (self.clip_seconds or 0.0) * self.cached_videos / max(1, self.workers)

    @property
    def hours(self) -> float:
        """Of the whole run: the slower of computing and decoding; both, without workers.

        With a cache, which is filled first, nothing is decoded beside the steps.
        """
        if self.cached_videos:
            return (self.caching_seconds + self.steps * self.seconds_per_step) / 3600
        both = (self.seconds_per_step, self.decoding_seconds_per_step)
        return self.steps * (max(both) if self.workers else sum(both)) / 3600

    def lines(self) -> list[str]:
        """What `train --dry-run` prints."""
        held = ", ".join(f"{name} {_size(size)}" for name, size in self.state_bytes.items())
        decoding = "the first videos of the list cannot be decoded"
        if self.clip_seconds is not None:
            how_fast = f"{self.clip_seconds:.3f} s a clip, {self.workers or 'no'} workers"
            decoding = f"{self.decoding_seconds_per_step:.2f} s per step: {how_fast}"
            if self.cached_videos:
                decoding = (
                    f"{self.cached_videos} videos once, into the cache, unless they are there: at "
                    f"least {_duration(self.caching_seconds / 3600)}: {how_fast}"
                )
        return [
            f"device       {self.device}, {self.processes} processes, {self.precision}",
            f"parameters   {self.parameters:,}, of which {self.trained:,} are trained",
            f"held         {_size(sum(self.state_bytes.values()))}: {held}",
            f"peak memory  {_size(self.peak_bytes)} in each process",
            f"computing    {self.seconds_per_step:.2f} s per step of {self.clips_per_step} clips "
            "in each process",
            f"decoding     {decoding}",
            f"the run      {self.steps} steps, {self.videos} videos, about {_duration(self.hours)}",
        ]


def dry_run(config: RunConfig) -> Estimate:
    """Build everything, train a few steps on random frames, and look at memory and clock.

    Nothing is written, no cache either, and the run's folder is not looked at. Raises a Refusal
    for what would keep the run from beginning, but for a cache that would be too large: that is
    known when all videos were looked at.
    """
    with distributed.process_group():
        # To open a cache is to write it: every video would be decoded before a figure is printed.
        uncached = replace(config, data=replace(config.data, cache=None))
        run = prepare(uncached, device=distributed.device_of_rank())
        clip_seconds = _clip_seconds(run)
        if run.recipe.examples_per_class:
            run.recipe.begin(_examples(run))
        batch = _random_batch(run)
        times = []
        for number in range(_WARM_UP_STEPS + _TIMED_STEPS):
            begun = time.perf_counter()
            run.step(min(number, run.step.steps - 1), batch)
            if run.step.device.type == "cuda":
                torch.cuda.synchronize(run.step.device)
            times.append(time.perf_counter() - begun)
        held = run.step.state_bytes()
        return Estimate(
            device=str(run.step.device),
            processes=distributed.world_size(),
            precision=config.optimisation.precision,
            parameters=sum(p.numel() for p in run.recipe.network.parameters()),
            trained=sum(torch.Size(s).numel() for s in run.step.weights.shapes.values()),
            state_bytes=held,
            # The mean begins later than these few steps.
            peak_bytes=_peak_bytes(run.step.device) + held.get("mean", 0),
            steps=run.step.steps,
            videos=len(run.videos.labelled),
            clips_per_step=len(batch.frames),
            workers=config.data.workers,
            seconds_per_step=min(times[_WARM_UP_STEPS:]),
            clip_seconds=clip_seconds,
            cached_videos=0 if config.data.cache is None else _files(run),
        )


def _random_batch(run: PreparedRun) -> Batch:
    raw = _random(run, rows=run.config.optimisation.batch_size // distributed.world_size())
    if run.recipe.needs_unlabelled:
        raw = RawBatch(raw.frames, raw.labels, raw.captions, raw.indices, unlabelled=raw)
    return run.feed(raw)


def _examples(run: PreparedRun) -> Iterator[Batch]:
    """Single frames for `Recipe.begin`, of another colour in each class.

    They are more than the embeddings have dimensions, so that something can be fitted to them.
    """
    classes = len(run.videos.classes)
    rows = 2 + run.recipe.network.embedding_size // classes
    colours = np.random.default_rng(0).integers(0, 128, (classes, 3), dtype=np.uint8)
    for label in range(classes):
        raw = _random(run, rows=rows, frames=1)
        frames = raw.frames // 2 + torch.from_numpy(colours[label])
        yield run.feed(RawBatch(frames, torch.full((rows,), label), None, raw.indices))


def _random(run: PreparedRun, *, rows: int, frames: int | None = None) -> RawBatch:
    """Random frames with random labels, and captions that are as long as the list's."""
    rng = np.random.default_rng(distributed.rank())
    size = run.recipe.network.image_size
    shape = (rows, run.config.frames if frames is None else frames, size, size, 3)
    classes = run.videos.classes
    captions = [text for video in run.videos.labelled.videos for text in video.captions]
    return RawBatch(
        frames=torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)),
        labels=torch.from_numpy(rng.integers(0, len(classes), rows)) if classes else None,
        captions=tuple(captions[i] for i in rng.integers(0, len(captions), rows))
        if captions
        else None,
        indices=torch.arange(rows),
    )


def _clip_seconds(run: PreparedRun) -> float | None:
    """How long this process takes for one clip of the list, on average over a few."""
    source, times = run.videos.labelled, []
    for place in range(min(4, len(source))):
        begun = time.perf_counter()
        if source.clip(place, seed=run.config.seed, stream=0, epoch=0).failed:
            continue
        times.append(time.perf_counter() - begun)
    return sum(times) / len(times) if times else None


def _files(run: PreparedRun) -> int:
    """How many videos the run learns from, each counted once."""
    sources = (run.videos.labelled, run.videos.unlabelled)
    return len({video.path for source in sources if source is not None for video in source.videos})


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1.0 else f"{hours * 60:.1f} minutes"
