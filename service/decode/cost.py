"""How long decoding will take: from a header before, corrected by what similar videos took.

A prediction multiplies the work that the seek policy will do (pictures decoded, packets read,
pictures converted) with prices, and the result with how far such predictions were off lately on
this machine. Prices only have to be right relative to each other.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from service.videoclip.errors import TimeRange
from service.videoclip.header import VideoHeader
from service.videoclip.manifest import Sampling
from service.videoclip.sampling import Timeline, frames_on_screen, plan
from service.videoclip.seeking import can_leave_out, groups_of

# Prices in seconds of one core of an AMD EPYC, from the films of tests/benchmarks/films.py and nine
# real files: within a factor of 2 of each without any correction.
_CALL: Final = 4e-3  # opening the file, and the way to the child and back
_PACKET: Final = 3e-6  # of the index
_GROUP: Final = 1e-3  # a seek
_PIXEL: Final = 2e-9  # decoded
_CONVERTED_PIXEL: Final = 10e-9  # to RGB, resized
_BYTE: Final = 20e-9  # of a decoded picture's data; also the whole guess where nothing is known
# Relative to H.264.
_CODEC_PRICES: Final = {
    "hevc": 1.6,
    "vp9": 1.2,
    "libdav1d": 1.4,
    "av1": 3.0,
    "mpeg4": 0.6,
    "mpeg1video": 0.4,
    "mpeg2video": 0.5,
    "mjpeg": 1.0,
    "prores": 3.0,
}
# Share of a group's pictures that are still decoded where unreferenced ones are left out.
_REFERENCED: Final = 0.6

_USUAL_FPS: Final = 30.0
_USUAL_SECONDS: Final = 30.0
_USUAL_KEY_SECONDS: Final = 8.0  # 250 pictures, what encoders do by themselves
_MAX_PICTURES: Final = 500_000

_QUANTILES: Final = ("0.1", "0.5", "0.9")
_REMEMBERED: Final = 64
_DOUBT: Final = 3
"""So many imagined measurements agree with the prior: a single odd video moves nothing."""


@dataclass(frozen=True)
class Prediction:
    """What decoding one video will take.

    Attributes:
        seconds: wall-clock, of one worker.
        uncorrected_seconds: before the correction by measurements.
        kind: which videos it is corrected by: the codec, or ``size``.
    """

    seconds: float
    uncorrected_seconds: float
    kind: str


@dataclass(frozen=True)
class Work:
    """What the seek policy does for one request."""

    packets: int
    groups: int
    decoded: int
    converted: int


def work_for(
    header: VideoHeader, *, sampling: Sampling, spans: Sequence[tuple[float, float]] | None
) -> Work:
    """Run sampling and seek policy on a made-up film with the figures of `header`."""
    rate = header.fps if header.fps and 1.0 <= header.fps <= 240.0 else _USUAL_FPS
    seconds = header.duration_seconds or _USUAL_SECONDS
    count = int(min(max(1.0, round(rate * seconds)), _MAX_PICTURES))
    key_seconds = header.key_seconds or min(_USUAL_KEY_SECONDS, seconds)
    pts = np.arange(count)
    keyframe = pts % max(1, min(count, round(rate * key_seconds))) == 0
    timeline = Timeline(pts_seconds=pts / rate, end_seconds=count / rate, keyframe=keyframe)
    try:
        if spans is None:
            times = plan(sampling, timeline)
        else:
            times = np.concatenate(
                [plan(sampling, timeline, start=start, end=end) for start, end in spans]
            )
    except TimeRange:  # an error after the index was read
        return Work(packets=count, groups=0, decoded=0, converted=0)
    wanted = np.unique(frames_on_screen(times, timeline.pts_seconds))
    groups = groups_of(wanted, pts=pts, keyframe=keyframe)
    return Work(
        packets=count,
        groups=len(groups),
        decoded=sum(group.packets for group in groups),
        converted=len(wanted),
    )


def price(header: VideoHeader, work: Work) -> float:
    """Seconds for `work`, before any correction."""
    pixels = header.width * header.height
    decoded = float(work.decoded)
    if can_leave_out(header.codec):
        decoded = max(work.converted, decoded * _REFERENCED)
    picture_bytes = header.size_bytes / max(1, work.packets)
    return (
        _CALL
        + _PACKET * work.packets
        + _GROUP * work.groups
        + decoded * pixels * _PIXEL * _CODEC_PRICES.get(header.codec, 1.0)
        + work.decoded * picture_bytes * _BYTE
        + work.converted * pixels * _CONVERTED_PIXEL
    )


class CostModel:
    """Predicts, and learns from what was measured."""

    def __init__(self) -> None:
        self._ratios: dict[str, _Ratios] = {}
        self._every = _Ratios()
        self._misses = _Ratios()

    def predict(
        self,
        header: VideoHeader,
        *,
        sampling: Sampling,
        spans: Sequence[tuple[float, float]] | None = None,
    ) -> Prediction:
        """Return what decoding `sampling` (of each of `spans`) will take."""
        work = work_for(header, sampling=sampling, spans=spans)
        return self._corrected(price(header, work), header.codec)

    def predict_size(self, size_bytes: int) -> Prediction:
        """Return a guess for a file of which only the size is known."""
        return self._corrected(_CALL + size_bytes * _BYTE, "size")

    def learn(self, prediction: Prediction, actual_seconds: float) -> None:
        """Take in what a predicted call took."""
        self._misses.add(actual_seconds / prediction.seconds)
        ratio = actual_seconds / prediction.uncorrected_seconds
        self._ratios.setdefault(prediction.kind, _Ratios()).add(ratio)
        if prediction.kind != "size":
            self._every.add(ratio)

    def quantiles(self) -> dict[str, float]:
        """How actual times compare with (corrected) predictions: ratios of the last videos."""
        if not self._misses.last:
            return {}
        found = np.quantile(self._misses.last, [float(name) for name in _QUANTILES])
        return dict(zip(_QUANTILES, map(float, found), strict=True))

    def _corrected(self, seconds: float, kind: str) -> Prediction:
        # A codec that was not seen yet is as far off as the others are.
        prior = 1.0 if kind == "size" else self._every.median(prior=1.0)
        ratio = self._ratios.get(kind, _Ratios()).median(prior=prior)
        return Prediction(seconds * ratio, seconds, kind)


@dataclass
class _Ratios:
    """The last ratios; their median does not care about a few videos that are very different."""

    last: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def add(self, ratio: float) -> None:
        self.last.append(ratio)

    def median(self, *, prior: float) -> float:
        return statistics.median([*self.last, *[prior] * _DOUBT])
