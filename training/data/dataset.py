"""Training clips: from a place in a list of videos to pixels, labels and words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing
from training.data.annotations import LabelledVideo, VideoListError
from training.data.augment import AugmentationName, augmentation
from training.data.clip_sampling import ClipSampling
from training.data.frame_cache import FrameCache
from training.evaluate.class_lists import ClassListError, match

Pixels = NDArray[np.uint8]

#: Videos in a row that may fail before the list is held to be wrong.
MAX_FAILURES_IN_A_ROW = 100
# Kinds of random numbers; each kind has its own stream for a seed.
_ORDER, _CLIP, _REPLACEMENT = range(3)


@dataclass(frozen=True)
class FailedVideo:
    """A video that cannot be decoded, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class Clip:
    """pixels: uint8 (T, S, S, 3). index: place in the list, after replacement. failed: videos that
    were drawn before and could not be decoded.
    """

    pixels: Pixels
    index: int
    label: int
    caption: str | None
    failed: tuple[FailedVideo, ...]


class NoVideoDecodesError(VideoListError):
    """So many videos in a row cannot be decoded that the list must be wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoSource:
    """Videos, and how clips are made of them.

    classes: what labels are matched with, by name; None for videos whose labels are not used.
    preprocessing: the network's; gives the size of the pictures and how they are resized. cache:
    decoded pictures of these videos, or of more; None decodes the files.
    Raises VideoListError when there are no videos or a label is missing, ClassListError for a label
    that is none of the classes, ConfigError for an augmentation that is not known.
    """

    videos: Sequence[LabelledVideo]
    classes: Sequence[str] | None
    sampling: ClipSampling
    preprocessing: Preprocessing
    augmentation: AugmentationName = "none"
    cache: FrameCache | None = None
    limits: Limits = field(default_factory=Limits)
    labels: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        if not self.videos:
            raise VideoListError("a source of clips: holds no videos")
        augmentation(self.augmentation)
        object.__setattr__(self, "labels", self._labels())

    def __len__(self) -> int:
        return len(self.videos)

    @cached_property
    def captioned(self) -> bool:
        """Whether any video has a caption."""
        return any(video.captions for video in self.videos)

    @property
    def picture_bytes(self) -> int:
        """Of one picture as the network sees it, in uint8."""
        return self.preprocessing.image_size**2 * 3

    def _labels(self) -> NDArray[np.int64]:
        """Positions in the classes, int64 (n,); -1 without classes."""
        if self.classes is None:
            return np.full(len(self.videos), -1, dtype=np.int64)
        position = {name: i for i, name in enumerate(self.classes)}
        names = [video.class_name for video in self.videos]
        if set(names) <= set(position):
            return np.array([position[name] for name in names], dtype=np.int64)
        try:
            known = match(names, self.classes, where="this run")
        except ClassListError as error:
            first = next((v for v in self.videos if str(error).startswith(repr(v.label))), None)
            where = "" if first is None else f"{first.path}: "
            raise ClassListError(f"{where}{error}") from error
        return np.array([position[known[name]] for name in names], dtype=np.int64)

    def order(self, *, seed: int, stream: int, epoch: int) -> NDArray[np.int64]:
        """The order of one pass over the videos: int64 (n,), every place once."""
        rng = np.random.default_rng([seed, _ORDER, stream, epoch])
        return rng.permutation(len(self.videos))

    def clip(self, index: int, *, seed: int, stream: int, epoch: int) -> Clip:
        """The clip of one video in one pass; the same for the same arguments, in any process.

        A video that cannot be decoded gives way to others, drawn at random. Raises
        NoVideoDecodesError when none of them can be either.
        """
        failed: list[FailedVideo] = []
        for place in self._candidates(index, seed=seed, stream=stream, epoch=epoch):
            rng = np.random.default_rng([seed, _CLIP, stream, epoch, index, len(failed)])
            found = self._pixels_or_reason(place, rng)
            if isinstance(found, FailedVideo):
                failed.append(found)
                continue
            # Drawn last: with captions and without, a seed gives the same clips.
            captions = self.videos[place].captions
            caption = captions[int(rng.integers(len(captions)))] if captions else None
            return Clip(found, place, int(self.labels[place]), caption, tuple(failed))
        first, listed = failed[0], len(self.videos)
        drawn = "none" if len(failed) == listed else f"none of {len(failed)} drawn out"
        raise NoVideoDecodesError(
            f"{drawn} of {listed} videos can be decoded; {first.path}: {first.reason}"
        )

    def own_clip(self, index: int, *, seed: int) -> Clip | FailedVideo:
        """The clip of this video and of no other; or why it cannot be decoded."""
        rng = np.random.default_rng([seed, _CLIP, 0, 0, index, 0])
        found = self._pixels_or_reason(index, rng)
        if isinstance(found, FailedVideo):
            return found
        return Clip(found, index, int(self.labels[index]), None, ())

    def _pixels_or_reason(self, place: int, rng: np.random.Generator) -> Pixels | FailedVideo:
        path = self.videos[place].path
        try:
            return self._pixels(path, rng)
        except VideoError as error:
            return FailedVideo(path, error.detail)
        except OSError as error:
            return FailedVideo(path, error.strerror or type(error).__name__)

    def _candidates(self, index: int, *, seed: int, stream: int, epoch: int) -> Iterator[int]:
        yield index
        rng = np.random.default_rng([seed, _REPLACEMENT, stream, epoch, index])
        others = rng.permutation(len(self.videos))
        others = others[others != index]
        yield from (int(place) for place in others[: MAX_FAILURES_IN_A_ROW - 1])

    def _pixels(self, path: Path, rng: np.random.Generator) -> Pixels:
        # Everything random is drawn before the video is looked at: a cache changes nothing.
        plan = self.sampling.draw(rng)
        transform = augmentation(self.augmentation).draw(rng, self.preprocessing)
        if self.cache is None:
            clip = decode_planned(path, plan=plan, shape=transform.shape, limits=self.limits)
            return transform.finish(clip.pixels[0])
        pictures = self.cache.pictures(path, plan)
        # A picture that is shown twice is resized once.
        return transform.finish(np.stack([transform.shape(picture) for picture in pictures]))
