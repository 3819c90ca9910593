"""The packet index of a video: every packet's time, read without decoding.

Headers lie about durations and counts, and containers without an index are common. Reading all
packets once costs little beside decoding and gives the exact presentation time of every picture,
for constant and variable rates, B-frames, edit lists and files that end too early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from service.videoclip.errors import VideoTooLong
from service.videoclip.sampling import Timeline
from service.videoclip.source import Limits, OpenVideo

# Stands for a time stamp that is missing.
_NO_PTS = np.iinfo(np.int64).min
# For a single picture of which nothing tells how long it is shown.
_STILL_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """Packets of the video stream in the order of the file, which is the order of decoding.

    Attributes:
        pts: int64 (P,), units of the stream's time base.
        size: int64 (P,), bytes.
        keyframe: bool (P,), decoding can start here.
        shown: bool (P,), False for pictures that are only decoded for others.
        last_duration: of the last picture, 0 if unknown; units of the time base.
        trusted: every packet has its own pts, and it is a *presentation* time stamp.
    """

    pts: NDArray[np.int64]
    size: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    last_duration: int
    trusted: bool

    def shown_packets(self) -> NDArray[np.int64]:
        """Numbers of the packets that are shown, in order of presentation."""
        numbers = np.flatnonzero(self.shown)
        return numbers[np.argsort(self.pts[numbers], kind="stable")]


def read_index(video: OpenVideo, *, limits: Limits) -> PacketIndex:
    """Read all packets of `video` once. Ends early, without an error, where the file does.

    Raises:
        VideoTooLong: more pictures or seconds than `limits` allow.
    """
    pts: list[int] = []
    size: list[int] = []
    keyframe: list[bool] = []
    shown: list[bool] = []
    duration: list[int] = []
    last_is_damaged = False
    max_ticks = limits.max_duration_seconds / float(video.time_base)
    earliest: int | None = None
    # VP8 keeps pictures that are never shown in packets of their own: bit 4 of the first byte
    # (RFC 6386, section 9.1).
    is_vp8 = video.decoder.name == "vp8"
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            break  # the file ends within a packet; what came before is good
        if packet is None:
            break
        if packet.size == 0:
            continue
        stamp = packet.pts
        pts.append(_NO_PTS if stamp is None else stamp)
        size.append(packet.size)
        keyframe.append(packet.is_keyframe)
        hidden = packet.is_discard or (is_vp8 and not bytes(memoryview(packet)[:1])[0] & 0x10)
        shown.append(not hidden)
        duration.append(packet.duration or 0)
        last_is_damaged = packet.is_corrupt
        if len(pts) > limits.max_frames:
            raise _too_many(limits)
        if stamp is not None and not hidden:
            earliest = stamp if earliest is None else min(earliest, stamp)
            if stamp - earliest > max_ticks:
                raise _too_long(float((stamp - earliest) * video.time_base), limits)
    if last_is_damaged:  # cut off within the packet: half a picture
        for column in (pts, size, keyframe, shown, duration):
            column.pop()
    stamps = np.array(pts, dtype=np.int64)
    visible = stamps[np.array(shown, dtype=bool)] if pts else stamps
    return PacketIndex(
        pts=stamps,
        size=np.array(size, dtype=np.int64),
        keyframe=np.array(keyframe, dtype=bool),
        shown=np.array(shown, dtype=bool),
        last_duration=duration[int(np.argmax(stamps))] if pts else 0,
        trusted=(
            bool(np.all(stamps != _NO_PTS))
            and len(np.unique(visible)) == len(visible)
            and not _has_decoding_times_only(video)
        ),
    )


def make_timeline(
    pts: NDArray[np.int64],
    *,
    time_base: Fraction,
    keyframe: NDArray[np.bool_],
    last_duration: int,
    header_seconds: float | None,
) -> Timeline:
    """The timeline of pictures with these time stamps.

    Args:
        pts: int64 (N,), N >= 1, ascending, units of `time_base`.
        time_base: seconds of one unit.
        keyframe: bool (N,).
        last_duration: of the last picture; believed unless it is under half the usual step.
        header_seconds: used for how long a single picture is shown if nothing else tells.
    """
    ticks = pts - pts[0]
    steps = np.diff(ticks)
    usual = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 0.0
    last = float(last_duration) if last_duration > usual / 2 else usual
    # In this order a time such as 7/5 comes out as the float nearest to it, so that a picture is
    # found by the time that a client writes down for it.
    seconds = ticks.astype(np.float64) * time_base.numerator / time_base.denominator
    end = float(seconds[-1]) + last * float(time_base)
    if not end > seconds[-1]:
        end = float(seconds[-1]) + (header_seconds or _STILL_SECONDS)
    return Timeline(
        pts_seconds=seconds,
        end_seconds=max(end, math.nextafter(float(seconds[-1]), math.inf)),
        keyframe=keyframe,
    )


def _has_decoding_times_only(video: OpenVideo) -> bool:
    """AVI numbers its packets as they are decoded; with B-frames this is not how they are shown."""
    return video.container_name == "avi" and video.decoder.reorder_depth > 0


def _too_many(limits: Limits) -> VideoTooLong:
    return VideoTooLong(
        f"the video has more than {limits.max_frames} pictures", limit=limits.max_frames
    )


def _too_long(seconds: float, limits: Limits) -> VideoTooLong:
    return VideoTooLong(
        f"the video lasts {seconds:.0f} s or more; at most {limits.max_duration_seconds:g} s "
        "are accepted",
        limit=limits.max_duration_seconds,
        actual=seconds,
    )
