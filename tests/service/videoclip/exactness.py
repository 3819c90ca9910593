"""The plain way to decode a video, and the comparison of `decode_clips` with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip.decoding import DecodedClip, Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pictures import upright_rgb
from service.videoclip.preprocessing import resize_crop

SMALL = Preprocessing(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def clip_of(path: Path, sampling: Sampling, **options: Any) -> DecodedClip:
    """`decode_clips` at 64 pixels with the default limits."""
    return decode_clips(path, sampling=sampling, preprocessing=SMALL, limits=Limits(), **options)


class WholeFile:
    """Every picture of a file, decoded from first to last, upright and small."""

    def __init__(self, path: Path) -> None:
        stamps, self.pictures = [], []
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            assert stream is not None
            time_base = stream.time_base
            assert time_base is not None
            for frame in container.decode(stream):
                assert isinstance(frame, av.VideoFrame)
                assert frame.pts is not None
                stamps.append(frame.pts)
                self.pictures.append(resize_crop(upright_rgb(frame), SMALL))
        # A decoder puts pictures out as they are shown, even where stamps are out of order.
        ticks = np.sort(np.array(stamps))
        self.times = (ticks - ticks[0]) * time_base.numerator / time_base.denominator

    def picture_at(self, time: float) -> tuple[float, NDArray[np.uint8]]:
        """The last picture that is first shown at or before `time`."""
        number = max(0, int(np.searchsorted(self.times, time, side="right")) - 1)
        return float(self.times[number]), self.pictures[number]


def assert_exact(path: Path, whole: WholeFile, times: Sequence[float]) -> None:
    """The pictures for `times` are those of the whole file, to the last bit."""
    sampling = Sampling(mode="explicit", frames=len(times), times_seconds=tuple(times))
    clip = clip_of(path, sampling)
    for number, time in enumerate(times):
        shown_at, expected = whole.picture_at(time)
        assert clip.times_seconds[0, number] == pytest.approx(shown_at, abs=1e-9)
        np.testing.assert_array_equal(clip.pixels[0, number], expected)
