"""What the tagger answers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.encode.space import EmbeddingSpace
from service.tags import Tag
from service.videoclip.decoding import VideoInfo
from service.videoclip.errors import VideoWarning


@dataclass(frozen=True)
class Classification:
    """The answer for one video.

    Attributes:
        video: what the video is.
        frames_used: seconds, ascending, of the frames that were looked at.
        tags: best first.
        none_score: that none of the labels applies; None unless scores are independent.
        space: which weights made the embeddings.
        warnings: what a client should know.
        timings_seconds: `wait` for a slot, `decode`, `text` (beside decode), `encode`, `score`,
            `total`.
        text_cache_hits: texts of the labels that needed no encoding.
        frames: number of frames encoded.
        embedding: float32 (D,), unit.
        logit_scale: of the space.
    """

    video: VideoInfo
    frames_used: tuple[float, ...]
    tags: tuple[Tag, ...]
    none_score: float | None
    space: EmbeddingSpace
    warnings: tuple[VideoWarning, ...]
    timings_seconds: dict[str, float]
    text_cache_hits: int
    frames: int
    embedding: npt.NDArray[np.float32]
    logit_scale: float


@dataclass(frozen=True)
class TaggedSegment:
    """A stretch [start, end) of a video in seconds, and what is in it.

    Attributes:
        start: seconds.
        end: seconds.
        tags: best first.
        none_score: that none of the labels applies; None unless scores are independent.
        warnings: that the answer for the whole video does not have.
        encoded_frames: pictures that the network looked at for this segment.
        merged: how many neighbours were joined in it.
    """

    start: float
    end: float
    tags: tuple[Tag, ...]
    none_score: float | None
    warnings: tuple[VideoWarning, ...]
    encoded_frames: int
    merged: int = 1


@dataclass(frozen=True)
class Segment:
    """A stretch [start, end) of a video in seconds, and its unit vector, float32 (D,)."""

    start: float
    end: float
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class SegmentedVideo:
    """All segments of a video, all of one space."""

    info: VideoInfo
    segments: tuple[Segment, ...]
    space: EmbeddingSpace
    warnings: tuple[VideoWarning, ...]


class EmbeddedTexts(NamedTuple):
    """Unit vectors float32 (n, D) of texts."""

    vectors: npt.NDArray[np.float32]
    space: EmbeddingSpace
    warnings: tuple[VideoWarning, ...]


class EmbeddedVideo(NamedTuple):
    """The unit vector float32 (D,) of a video."""

    vector: npt.NDArray[np.float32]
    space: EmbeddingSpace
    info: VideoInfo
    warnings: tuple[VideoWarning, ...]
