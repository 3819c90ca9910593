"""Films of the kinds that services get, drawn: a pattern that scrolls, with noise and cuts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

_TICKS = Fraction(1, 1000)
_FPS = 25


# Quick to draw, with the B-frames and references of slower presets.
_QUICK = {"preset": "ultrafast", "x264-params": "bframes=3:ref=2:cabac=1:scenecut=40"}
_OPEN = {"preset": "ultrafast", "x264-params": "open-gop=1:bframes=8:b-adapt=0:ref=2:cabac=1"}


@dataclass(frozen=True)
class Kind:
    """How a film is encoded and packed."""

    name: str
    height: int
    seconds: int
    gop: int = 250
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: _QUICK)
    container: dict[str, str] = field(default_factory=dict)
    is_variable: bool = False


KINDS = {
    kind.name.split(".")[0]: kind
    for kind in (
        Kind("720p-60s-gop250.mp4", 720, 60),
        Kind("360p-10min-gop250.mp4", 360, 600),
        Kind("360p-10min-gop30.mp4", 360, 600, gop=30),
        Kind("1080p-10s-gop250.mp4", 1080, 10),
        Kind(
            "720p-20s-hevc.mp4",
            720,
            20,
            codec="libx265",
            options={"preset": "ultrafast", "x265-params": "log-level=none"},
        ),
        Kind(
            "720p-20s-vp9.webm",
            720,
            20,
            codec="libvpx-vp9",
            options={"deadline": "realtime", "cpu-used": "8", "b": "3M"},
        ),
        Kind(
            "720p-20s-av1.mp4",
            720,
            20,
            codec="libsvtav1",
            options={"preset": "12", "svtav1-params": "lookahead=0"},
        ),
        Kind("720p-20s-open-gop.mp4", 720, 20, gop=50, options=_OPEN),
        Kind("720p-30s-vfr.mp4", 720, 30, is_variable=True),
        Kind("720p-20s-gop50.ts", 720, 20, gop=50),
        Kind(
            "720p-20s-fragmented.mp4",
            720,
            20,
            gop=50,
            container={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        ),
        Kind("720p-20s-no-cues.mkv", 720, 20, gop=50, container={"live": "1"}),
        Kind("360p-30s-mpeg4.avi", 360, 30, gop=100, codec="mpeg4", options={"b": "1M"}),
    )
}


def draw(kind: str, folder: Path) -> Path:
    """Return the film of this kind in `folder`; it is drawn if it is not there.

    Raises:
        av.FFmpegError: this build of FFmpeg has no such encoder.
    """
    wanted = KINDS[kind]
    path = folder / wanted.name
    if path.exists():
        return path
    partial = folder / f"partial-{os.getpid()}-{wanted.name}"
    width = wanted.height * 16 // 9 // 2 * 2
    try:
        with av.open(str(partial), "w", options=wanted.container) as container:
            stream = container.add_stream(wanted.codec, rate=_FPS, options=wanted.options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, wanted.height, "yuv420p"
            stream.codec_context.time_base = stream.time_base = _TICKS
            stream.codec_context.gop_size = wanted.gop
            for stamp, picture in _pictures(wanted, width):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts, frame.time_base = stamp, _TICKS
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _pictures(kind: Kind, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Time stamps and pictures as planar YUV 4:2:0, uint8 (3 H / 2, W)."""
    generator = np.random.default_rng(0)
    height = kind.height
    y, x = np.mgrid[0 : height + 256, 0 : width + 512].astype(np.float32)
    scenes = [
        (128 + 70 * np.sin(x / a + y / b) + generator.normal(0, 12, x.shape)).astype(np.uint8)
        for a, b in ((17, 23), (5, 90), (60, 11))
    ]
    frame = np.empty((height * 3 // 2, width), np.uint8)
    stamp = 0
    for number in range(kind.seconds * _FPS):
        scene = scenes[number // 83 % len(scenes)]
        across, down = 3 * number % 512, 2 * number % 256
        frame[:height] = scene[down : down + height, across : across + width]
        frame[height:] = 128
        frame[height : height + height // 4] = 96 + number % 64
        # A counter that tells every picture from its neighbours.
        frame[: height // 4, : width // 4] = (number * 37) % 256
        noise = generator.integers(0, 40, (64, 64), np.uint8)
        frame[height // 2 : height // 2 + 64, :64] += noise
        yield stamp, frame
        stamp += (20 + 20 * (number % 4)) if kind.is_variable else 1000 // _FPS
