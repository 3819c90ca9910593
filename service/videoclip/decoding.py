"""Decode exactly the pictures that a sampling asks for, and say at which times they are shown.

The picture for time t is the one on screen then: the last whose presentation time is <= t. First
the packet index tells which packet that is; then only the groups of pictures that hold wanted ones
are decoded, reached by seeking, and every step is checked against the index. Where time stamps
cannot be trusted (AVI with B-frames, missing stamps) or a wanted picture is damaged, the whole
stream is decoded in order instead: a decoder puts pictures out in the order of presentation, so
the sorted stamps are their times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from service.videoclip.clips import Canvas, DecodedClip, Plan, Request, Shape, VideoInfo, finish
from service.videoclip.errors import NoFrames, VideoTooLong, VideoWarning
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.packets import PacketIndex, make_timeline, read_index
from service.videoclip.preprocessing import resize_crop
from service.videoclip.reader import LostPlaceError, PacketReader
from service.videoclip.sampling import frames_on_screen
from service.videoclip.seeking import choose_route, groups_of
from service.videoclip.source import Limits, OpenVideo, VideoFile, open_video

__all__ = [
    "DecodedClip",
    "Limits",
    "VideoFile",
    "VideoInfo",
    "decode_clips",
    "decode_planned",
    "probe",
]


def probe(file: VideoFile, *, limits: Limits) -> VideoInfo:
    """What `file` holds. Reads all packets and decodes one picture.

    Raises:
        VideoError: as `decode_clips`.
    """
    tiny = Preprocessing(image_size=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    first = Sampling(mode="explicit", frames=1, times_seconds=(0.0,))
    return decode_clips(file, sampling=first, preprocessing=tiny, limits=limits).info


def decode_clips(
    file: VideoFile,
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    limits: Limits,
    spans: Sequence[tuple[float, float]] | None = None,
    out: NDArray[np.uint8] | None = None,
    threads: int = 1,
) -> DecodedClip:
    """Decode the pictures that `sampling` asks for, upright, resized and cropped.

    Args:
        file: a video file, by path or open.
        sampling: which pictures.
        preprocessing: how they become squares; they are not normalised.
        limits: what the video may cost.
        spans: None for the whole video as one part; or (start, end) in seconds for each part, all
            decoded in one pass.
        out: array to fill and return as `pixels`: C-contiguous uint8 (V, T, S, S, 3), with V =
            `sampling.views`, times the number of spans if there are any.
        threads: of the decoder; 0 lets it choose. More than one helps a lone request.

    Raises:
        UnsupportedContainer, NotAVideo, UnsupportedCodec: it is no video that is accepted.
        NoFrames: nothing could be decoded.
        PictureTooLarge, VideoTooLong: it passes a limit.
        TimeRange: a span or an explicit time is not in the video.
        ValueError: `spans` is empty or `out` does not fit.
        OSError: the file cannot be read at all.
    """
    if spans is not None and len(spans) == 0:
        raise ValueError("spans: is empty")
    request = Request(sampling=sampling, spans=spans)
    size = preprocessing.image_size
    shape = (request.views, sampling.frames, size, size, 3)
    if out is None:
        out = np.empty(shape, dtype=np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out: expected contiguous uint8 {shape}, got {out.dtype} {out.shape}")
    canvas = Canvas(shape=partial(resize_crop, p=preprocessing), pixels=out)
    return _decode(file, request.times, canvas, limits=limits, threads=threads)


def decode_planned(
    file: VideoFile, *, plan: Plan, shape: Shape, limits: Limits, threads: int = 1
) -> DecodedClip:
    """Decode pictures at times that depend on the video, each shaped by the caller.

    For training: random clips, random crops. What is served goes through `decode_clips`.

    Args:
        file: a video file, by path or open.
        plan: the video's timeline -> float64 (V, T), times in the video. It may be asked twice,
            and answers the same to the same timeline.
        shape: an upright picture, uint8 (H, W, 3), a view -> uint8 (h, w, 3); of one size for all
            pictures of the video.
        limits: what the video may cost.
        threads: of the decoder.

    Returns:
        As `decode_clips`, with `pixels` uint8 (V, T, h, w, 3).

    Raises:
        VideoError: as `decode_clips`, and for pictures whose size changes within the video.
        OSError: the file cannot be read at all.
    """
    canvas = Canvas(shape=shape, pixels=None)
    return _decode(file, plan, canvas, limits=limits, threads=threads)


def _decode(
    file: VideoFile, plan: Plan, canvas: Canvas, *, limits: Limits, threads: int
) -> DecodedClip:
    with open_video(file, limits=limits, threads=threads) as video:
        index = read_index(video, limits=limits)
        if not np.any(index.shown):
            raise NoFrames("the file holds no picture")
        if choose_route(stamps_trusted=index.trusted) == "groups":
            clip = _decode_groups(video, index, plan, canvas)
            if clip is not None:
                return clip
    return _decode_in_order(file, plan, canvas, limits=limits, threads=threads)


def _decode_groups(
    video: OpenVideo, index: PacketIndex, plan: Plan, canvas: Canvas
) -> DecodedClip | None:
    """Decode only groups of pictures that are needed; None if a picture does not turn up."""
    shown = index.shown_packets()
    timeline = make_timeline(
        index.pts[shown],
        time_base=video.time_base,
        keyframe=index.keyframe[shown],
        last_duration=index.last_duration,
        header_seconds=video.header_seconds,
    )
    chosen = frames_on_screen(plan(timeline), timeline.pts_seconds)
    places = _places(chosen)
    wanted = {int(index.pts[shown[number]]): number for number in places}
    reader = PacketReader(video, index)
    try:
        numbers = {int(shown[number]) for number in places}
        groups = groups_of(shown[list(places)], pts=index.pts, keyframe=index.keyframe)
        for group in groups:
            for frame in reader.decode(group.first, group.last, wanted=numbers):
                found = wanted.pop(frame.pts, None) if frame.pts is not None else None
                if found is not None:
                    canvas.put(frame, places[found], clips=chosen.shape)
    except LostPlaceError:
        return None
    if wanted:
        return None
    warnings = []
    if reader.errors:
        warnings.append(_damaged(reader.errors))
    return finish(video, canvas, timeline, chosen, warnings)


def _decode_in_order(
    file: VideoFile,
    plan: Plan,
    canvas: Canvas,
    *,
    limits: Limits,
    threads: int,
) -> DecodedClip:
    """Decode everything twice: once to learn the times, once for the pictures."""
    stamps: list[int | None] = []
    keyframe: list[bool] = []
    with open_video(file, limits=limits, threads=threads) as video:
        decoding = _AllFrames(video)
        for frame in decoding:
            stamps.append(frame.pts)
            keyframe.append(frame.key_frame)
            if len(stamps) > limits.max_frames:
                raise VideoTooLong(
                    f"the video has more than {limits.max_frames} pictures",
                    limit=limits.max_frames,
                )
        if not stamps:
            raise NoFrames("not one picture of the video could be decoded")
        pts, repaired = _presentation_stamps(video, stamps)
        timeline = make_timeline(
            pts,
            time_base=video.time_base,
            keyframe=np.array(keyframe, dtype=bool),
            last_duration=0,
            header_seconds=video.header_seconds,
        )
    chosen = frames_on_screen(plan(timeline), timeline.pts_seconds)
    places = _places(chosen)
    with open_video(file, limits=limits, threads=threads) as video:
        last = max(places)
        for number, frame in enumerate(_AllFrames(video)):
            if number in places:
                canvas.put(frame, places[number], clips=chosen.shape)
            if number == last:
                break
        warnings = []
        if decoding.errors:
            warnings.append(_damaged(decoding.errors))
        if repaired:
            warnings.append(
                VideoWarning(
                    "timestamps_repaired",
                    "the file's time stamps are missing or not in order; "
                    "times follow the order of the pictures",
                )
            )
        return finish(video, canvas, timeline, chosen, warnings)


class _AllFrames:
    """All frames of a stream in order of presentation; damaged packets are counted, not fatal."""

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self.errors = 0

    def __iter__(self) -> Iterator[VideoFrame]:
        packets = self._video.container.demux(self._video.stream)
        while True:
            try:
                packet: Packet[VideoStream] | None = next(packets, None)
            except av.FFmpegError:
                packet = None
            at_end = packet is None or packet.size == 0
            try:
                yield from self._video.decoder.decode(None if at_end else packet)
            except av.FFmpegError:
                self.errors += 1
            if at_end:
                return


def _presentation_stamps(
    video: OpenVideo, stamps: list[int | None]
) -> tuple[NDArray[np.int64], bool]:
    """Ascending stamps for frames in order of presentation, and whether they were repaired."""
    known = np.array([stamp for stamp in stamps if stamp is not None], dtype=np.int64)
    distinct = len(np.unique(known))
    if len(known) < len(stamps) or distinct * 2 < len(stamps):
        rate = video.stream.guessed_rate or video.stream.average_rate or 25
        step = max(1, round(1 / (float(rate) * float(video.time_base))))
        return np.arange(len(stamps), dtype=np.int64) * step, True
    ordered = np.sort(known)
    return ordered, not np.array_equal(ordered, known)


def _places(chosen: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Picture number -> flat positions of (V, T) where it goes."""
    flat = chosen.reshape(-1)
    return {int(number): np.flatnonzero(flat == number) for number in np.unique(flat)}


def _damaged(errors: int) -> VideoWarning:
    return VideoWarning(
        "damaged_stream", f"packets of the video that could not be decoded: {errors}"
    )
