"""Go to a packet of the index and decode from there, checking every packet on the way."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service.videoclip.packets import PacketIndex
from service.videoclip.seeking import can_leave_out, reads_on
from service.videoclip.source import OpenVideo

# How much earlier to seek when a container lands behind its target (MPEG-TS, fragmented MP4).
_STEPS_BACK_SECONDS = (0.0, 1.0, 4.0)
# After a seek, how many packets may be unknown to the index before the place counts as lost.
_MAX_UNKNOWN_PACKETS = 512


class LostPlaceError(Exception):
    """The file does not give the same packets again, or not in order; nothing for clients."""


class PacketReader:
    """Decodes ranges of packets of an indexed video, in ascending order of the ranges.

    Attributes:
        errors: packets that the decoder refused so far.
    """

    def __init__(self, video: OpenVideo, index: PacketIndex) -> None:
        self._video = video
        self._index = index
        self._numbers = {
            (int(pts), int(size)): number
            for number, (pts, size) in enumerate(zip(index.pts, index.size, strict=True))
        }
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._next: int | None = None
        self.errors = 0

    def decode(self, first: int, last: int, *, wanted: set[int]) -> Iterator[VideoFrame]:
        """Frames of packets `first` to `last`, both included; `first` must be decodable alone.

        Pictures that no other picture needs and that are not in `wanted` may be left out.

        Raises:
            LostPlaceError: the place was not found again, or frames come out of order.
        """
        packet = self._go_to(first)
        decoder = self._video.decoder
        decoder.flush_buffers()
        can_skip = can_leave_out(decoder.name)
        previous: int | None = None
        for number in range(first, last + 1):
            if number > first:
                packet = self._read(number)
            if can_skip:
                needed = number in wanted or bool(self._index.keyframe[number])
                decoder.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in self._feed(packet):
                previous = _check_order(frame, previous)
                yield frame
        for frame in self._feed(None):
            previous = _check_order(frame, previous)
            yield frame

    def _feed(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return self._video.decoder.decode(packet)
        except av.FFmpegError:
            self.errors += 1
            return []

    def _read(self, number: int) -> Packet[VideoStream]:
        """The packet that must come next."""
        packet = self._read_any()
        if self._number_of(packet) != number or packet is None:
            raise LostPlaceError
        self._next = number + 1
        return packet

    def _read_any(self) -> Packet[VideoStream] | None:
        while True:
            try:
                packet = next(self._packets, None)
            except av.FFmpegError:
                return None
            if packet is None or packet.size:
                return packet

    def _number_of(self, packet: Packet[VideoStream] | None) -> int | None:
        if packet is None or packet.pts is None:
            return None
        return self._numbers.get((packet.pts, packet.size))

    def _go_to(self, first: int) -> Packet[VideoStream]:
        if reads_on(self._next, first):
            packet = self._skip_to(first)
            if packet is not None:
                return packet
        for back in _STEPS_BACK_SECONDS:
            target = int(self._index.pts[first]) - round(back / float(self._video.time_base))
            packet = self._seek(target, first)
            if packet is not None:
                return packet
        packet = self._seek(int(self._index.pts.min()), first)
        if packet is None:
            raise LostPlaceError
        return packet

    def _seek(self, target: int, first: int) -> Packet[VideoStream] | None:
        try:
            self._video.container.seek(target, stream=self._video.stream, backward=True)
        except av.FFmpegError:
            return None
        self._packets = self._video.container.demux(self._video.stream)
        return self._skip_to(first)

    def _skip_to(self, first: int) -> Packet[VideoStream] | None:
        """Read without decoding up to packet `first`; None if the place is behind it."""
        unknown = 0
        while unknown < _MAX_UNKNOWN_PACKETS:
            packet = self._read_any()
            if packet is None:
                return None
            number = self._number_of(packet)
            if number == first:
                self._next = first + 1
                return packet
            if number is None:
                unknown += 1
            elif number > first:
                return None
        return None


def _check_order(frame: VideoFrame, previous: int | None) -> int:
    if frame.pts is None or (previous is not None and frame.pts <= previous):
        raise LostPlaceError
    return frame.pts
