"""Small films drawn for the tests: every picture can be told from every other one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

DISPLAY_MATRICES = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def picture(number: int, *, width: int, height: int) -> NDArray[np.uint8]:
    """Picture `number` of a film, uint8 (height, width, 3): bars that move, blocks that count."""
    x = np.arange(width)[None, :, None]
    y = np.arange(height)[:, None, None]
    phase = np.array([0.0, 2.1, 4.2])
    waves: NDArray[np.float64] = 128 + 100 * np.sin(0.13 * (x + 3 * number) + 0.07 * y + phase)
    waves[: height // 4] = 20
    for bit in range(8):
        if number >> bit & 1:
            left = bit * width // 8
            waves[: height // 4, left : left + width // 8] = 235
    return waves.astype(np.uint8)


def read_number(rgb: NDArray[np.uint8]) -> int:
    """Which picture of a film this is, read from its blocks; `rgb` may be resized."""
    height, width, _ = rgb.shape
    row = rgb[height // 8].astype(np.float64).mean(axis=-1)
    bits = [row[bit * width // 8 + width // 16] > 127 for bit in range(8)]
    return sum(1 << bit for bit, lit in enumerate(bits) if lit)


def write_film(
    path: Path,
    *,
    pts: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    width: int = 128,
    height: int = 128,
    gop: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a film whose picture i is `picture(i)`, first shown at ``pts[i] * time_base``."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        stream.codec_context.gop_size = gop
        for number, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture(number, width=width, height=height))
            frame = frame.reformat(format=pix_fmt)
            frame.pts = stamp
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_film(path: Path, *, degrees: int) -> Path:
    """Write a rotation (clockwise, a multiple of 90) into the track header of an MP4 file."""
    a, b, c, d = DISPLAY_MATRICES[degrees]
    return set_display_matrix(path, (a, b, c, d))


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Replace the matrix (a, b, c, d) in the `tkhd` box of an MP4 file with one track."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd")
    assert data[box + 4] == 0, "version 0 of the box"
    # After version, flags, times, ids, duration, reserved, layer, group, volume, reserved.
    at = box + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def decode_naively(path: Path) -> tuple[list[int | None], list[NDArray[np.uint8]]]:
    """Every frame of the best video stream in the order of the decoder: pts and stored RGB."""
    stamps: list[int | None] = []
    pictures: list[NDArray[np.uint8]] = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        for frame in container.decode(stream):
            assert isinstance(frame, av.VideoFrame)
            stamps.append(frame.pts)
            pictures.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
    return stamps, pictures
