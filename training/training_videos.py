"""The videos of a run: its lists, read, joined with captions and cut down, as sources of clips."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.videoclip.manifest import Preprocessing
from training.data.annotations import LabelledVideo, classes_of
from training.data.batches import RawBatch
from training.data.captions import add_captions, read_captions
from training.data.clip_sampling import ClipSampling
from training.data.dataset import FailedVideo, NoVideoDecodesError, VideoSource
from training.data.frame_cache import FrameCache, open_frame_cache
from training.run_config import DataConfig, RunConfig, as_list

# Of the network's image size: what the papers' augmentations resize to, 256 of 224.
_CACHED_SIDE = 256 / 224


@dataclass(frozen=True, eq=False)
class TrainingVideos:
    """labelled: the training list; its classes are None where it has no labels. validation, and
    unlabelled: None without. notes: what a reader of the run should know about the lists.
    """

    labelled: VideoSource
    unlabelled: VideoSource | None
    validation: VideoSource | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the training list, in words; none where it has no labels."""
        return tuple(self.labelled.classes or ())

    @property
    def have_captions(self) -> bool:
        """Whether any training video has one."""
        return any(video.captions for video in self.labelled.videos)

    @property
    def sha256(self) -> str:
        """Of names, labels and captions, in the order of the lists."""
        digest = hashlib.sha256()
        for source in (self.labelled, self.unlabelled, self.validation):
            for video in () if source is None else source.videos:
                digest.update(f"{video.path.name}\t{video.label}\t{video.captions}\n".encode())
        return digest.hexdigest()

    def largest(self, *, unlabelled: bool) -> int:
        """Videos of the larger source, which decides how long a pass is (FitCLIP)."""
        second = len(self.unlabelled) if unlabelled and self.unlabelled is not None else 0
        return max(len(self.labelled), second)

    def examples(self, per_class: int) -> VideoSource:
        """At most so many training videos of each class, the first of the list, as in serving."""
        taken: Counter[str] = Counter()
        chosen = []
        for video in dict.fromkeys(self.labelled.videos):  # a repeated one is no further example
            taken[video.class_name] += 1
            if taken[video.class_name] <= per_class:
                chosen.append(video)
        return _as_served(self.labelled, chosen, cache=self.labelled.cache)


def read_training_videos(config: RunConfig, preprocessing: Preprocessing) -> TrainingVideos:
    """Read every list that the run learns from.

    Raises VideoListError, CaptionError, ClassListError or FrameCacheError for what cannot be used.
    """
    data = config.data
    everything = as_list(data.train).read(labelled=False)
    listed = data.subset.of(everything)
    copies = data.subset.copies(everything, listed)
    notes = []
    if data.captions is not None:
        captioned = add_captions(listed, read_captions(data.captions), where=data.captions)
        listed = list(captioned.videos)
        notes.append(captioned.report())
    if copies > 1:
        notes.append(f"{len(listed)} videos, each {copies} times in a pass")
    has_labels = any(video.label is not None for video in listed)
    classes = classes_of(listed) if has_labels else None
    second = []
    if data.unlabelled is not None:
        second = as_list(data.unlabelled).read(labelled=False)
    cache = _cache(data, [*listed, *second], preprocessing)

    def source(videos: Sequence[LabelledVideo], names: tuple[str, ...] | None) -> VideoSource:
        return VideoSource(
            videos=videos,
            classes=names,
            sampling=ClipSampling(
                mode=data.sampling, frames=config.frames, stride_seconds=data.stride_seconds
            ),
            preprocessing=preprocessing,
            augmentation=data.augmentation,
            cache=cache,
        )

    labelled = source(listed * copies, classes)
    validation = None
    if config.validation is not None:
        videos = as_list(config.validation.videos).read(labelled=has_labels)
        validation = _as_served(labelled, videos)
    return TrainingVideos(
        labelled=labelled,
        unlabelled=source(second, None) if second else None,
        validation=validation,
        notes=tuple(notes),
    )


def in_order(
    source: VideoSource,
    *,
    batch_size: int,
    seed: int,
    on_failure: Callable[[FailedVideo], None],
) -> Iterator[RawBatch]:
    """Every clip once, in the order of the list; a batch may be smaller, and none is empty.

    What cannot be decoded is left out and told to `on_failure`: another video in its place would
    count twice, and as the other's class. Raises NoVideoDecodesError when none can be.
    """
    reason = ""
    any_left = False
    for first in range(0, len(source), batch_size):
        clips = []
        for place in range(first, min(first + batch_size, len(source))):
            found = source.own_clip(place, seed=seed)
            if isinstance(found, FailedVideo):
                reason = reason or f"{found.path}: {found.reason}"
                on_failure(found)
            else:
                clips.append(found)
        if not clips:
            continue
        any_left = True
        yield RawBatch(
            frames=torch.from_numpy(np.stack([clip.pixels for clip in clips])),
            labels=torch.tensor([clip.label for clip in clips]),
            captions=None,
            indices=torch.tensor([clip.index for clip in clips]),
        )
    if not any_left:
        raise NoVideoDecodesError(f"none of {len(source)} examples can be decoded; {reason}")


def _as_served(
    like: VideoSource, videos: Sequence[LabelledVideo], *, cache: FrameCache | None = None
) -> VideoSource:
    """Other videos of the same classes, without anything random."""
    return VideoSource(
        videos=videos,
        classes=like.classes,
        sampling=ClipSampling(mode="uniform", frames=like.sampling.frames),
        preprocessing=like.preprocessing,
        cache=cache,
    )


def _cache(
    data: DataConfig, videos: Sequence[LabelledVideo], preprocessing: Preprocessing
) -> FrameCache | None:
    if data.cache is None:
        return None
    side = math.ceil(preprocessing.image_size * _CACHED_SIDE)
    return open_frame_cache(
        Path(data.cache),
        videos,
        shorter_side=max(side, preprocessing.resize_size or 0),
        pictures=data.cache_pictures,
        processes=max(1, data.workers),
    )
