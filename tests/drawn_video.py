"""A small real H.264 file with something moving in it, for tests that need any video at all."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def draw_video(
    path: Path, *, seconds: float = 2.0, fps: int = 15, width: int = 160, height: int = 120
) -> Path:
    """Write an MP4 of a bright square moving right over a dark ground; return its path."""
    side = height // 4
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        count = round(seconds * fps)
        for number in range(count):
            picture = np.full((height, width, 3), 24, np.uint8)
            left = round(number / max(1, count - 1) * (width - side))
            picture[(height - side) // 2 :][:side, left : left + side] = (220, 60, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
