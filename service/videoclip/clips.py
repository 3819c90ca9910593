"""What decoding is asked for and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from service.videoclip.errors import VideoError, VideoWarning
from service.videoclip.manifest import Sampling
from service.videoclip.pictures import orientation_of, upright_rgb
from service.videoclip.sampling import Timeline, Times, plan
from service.videoclip.source import OpenVideo

#: When to look at a video with this timeline: float64 (V, T). It is asked twice where groups of
#: pictures cannot be decoded alone, and has to answer the same to the same timeline.
Plan = Callable[[Timeline], Times]
#: From an upright picture, uint8 (H, W, 3), to one that is ready, uint8 (h, w, 3).
Shape = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

# A shortfall below both is within what headers round away.
_TRUNCATION_SECONDS = 0.5
_TRUNCATION_SHARE = 0.05
_SQUARE_TOLERANCE = 0.05


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video after reading its packets and one picture.

    Attributes:
        container: short name, e.g. ``mov``, ``matroska``.
        codec: name of the decoder, e.g. ``h264``, ``libdav1d``.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        rotation_degrees: 0, 90, 180 or 270: how far the stored picture is turned clockwise.
        fps: pictures per second on average, None for a single picture.
        duration_seconds: from the first picture to the end of the last.
        frame_count: pictures that are shown.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation_degrees: int
    fps: float | None
    duration_seconds: float
    frame_count: int


@dataclass(frozen=True, eq=False)
class DecodedClip:
    """Pictures of one video, ready to be normalised.

    Attributes:
        pixels: uint8 (V, T, S, S, 3), RGB; of another height and width if the caller shaped them.
        times_seconds: float64 (V, T), when the pictures in `pixels` are first on screen.
        info: about the video.
        warnings: what was wrong without preventing an answer.
    """

    pixels: NDArray[np.uint8]
    times_seconds: Times
    info: VideoInfo
    warnings: tuple[VideoWarning, ...]


@dataclass(frozen=True, eq=False)
class Request:
    """Which pictures of a video are wanted; `spans` None means the whole video as one part."""

    sampling: Sampling
    spans: Sequence[tuple[float, float]] | None

    @property
    def views(self) -> int:
        """Number of clips, V."""
        return self.sampling.views * (1 if self.spans is None else len(self.spans))

    def times(self, timeline: Timeline) -> Times:
        """When to look at a video with this timeline: float64 (V, T).

        Raises:
            TimeRange: a span or an explicit time is not in the video.
        """
        if self.spans is None:
            return plan(self.sampling, timeline)
        rows = [plan(self.sampling, timeline, start=start, end=end) for start, end in self.spans]
        return np.concatenate(rows)


@dataclass
class Canvas:
    """Where pictures go as soon as they are decoded; the full-size ones are dropped.

    Attributes:
        shape: makes an upright picture ready.
        pixels: uint8 (V, T, h, w, 3), C-contiguous; filled by `put`. None: made for the first
            picture that is put, of the size that `shape` gives it.
        upright_size: (width, height) of the first picture that was put.
        rotation_degrees: of that picture, clockwise.
        converter: to RGB; may be given pictures of any size and format.
    """

    shape: Shape
    pixels: NDArray[np.uint8] | None
    upright_size: tuple[int, int] | None = None
    rotation_degrees: int = 0
    converter: VideoReformatter = field(default_factory=VideoReformatter)

    def put(self, frame: VideoFrame, places: NDArray[np.int64], *, clips: tuple[int, ...]) -> None:
        """Write `frame` to flat positions of `clips`, which is (V, T).

        Raises:
            VideoError: `shape` gives it another size than the pictures before it.
        """
        picture = upright_rgb(frame, converter=self.converter)
        small = self.shape(picture)
        if self.pixels is None:
            self.pixels = np.empty((*clips, *small.shape), dtype=np.uint8)
        elif self.pixels.shape[2:] != small.shape:
            raise VideoError(
                "the pictures change their size within the video", code="picture_size_changes"
            )
        self.pixels.reshape(-1, *small.shape)[places] = small
        if self.upright_size is None:
            self.upright_size = (picture.shape[1], picture.shape[0])
            self.rotation_degrees = orientation_of(frame).rotation_degrees


def finish(
    video: OpenVideo,
    canvas: Canvas,
    timeline: Timeline,
    chosen: NDArray[np.int64],
    warnings: list[VideoWarning],
) -> DecodedClip:
    """Describe what was decoded into `canvas`; adds to `warnings` what the timeline shows."""
    count = len(timeline.pts_seconds)
    duration = timeline.end_seconds
    expected = video.header_seconds
    if expected is None:
        warnings.append(
            VideoWarning(
                "duration_unknown", f"the header states no duration; measured {duration:.3f} s"
            )
        )
    elif expected - duration > max(_TRUNCATION_SECONDS, _TRUNCATION_SHARE * expected):
        warnings.append(
            VideoWarning(
                "truncated_stream",
                f"{duration:.3f} of {expected:.3f} seconds could be decoded",
            )
        )
    fewest = min(len(np.unique(row)) for row in chosen)
    frames = chosen.shape[1]
    if fewest < frames:
        warnings.append(
            VideoWarning(
                "frames_repeated",
                f"{frames} pictures were asked for, {fewest} different ones are there",
            )
        )
    ratio = video.decoder.sample_aspect_ratio
    if ratio and abs(float(ratio) - 1.0) > _SQUARE_TOLERANCE:
        warnings.append(
            VideoWarning(
                "non_square_pixels",
                f"pixels are meant to be shown {float(ratio):.3f} times as wide as high; "
                "they are used as square",
            )
        )
    # Every way here has put a picture.
    assert canvas.upright_size is not None and canvas.pixels is not None  # noqa: S101, PT018
    width, height = canvas.upright_size
    span = float(timeline.pts_seconds[-1])
    return DecodedClip(
        pixels=canvas.pixels,
        times_seconds=timeline.pts_seconds[chosen],
        info=VideoInfo(
            container=video.container_name,
            codec=video.decoder.name,
            width=width,
            height=height,
            rotation_degrees=canvas.rotation_degrees,
            fps=(count - 1) / span if span > 0 else None,
            duration_seconds=duration,
            frame_count=count,
        ),
        warnings=tuple(warnings),
    )
