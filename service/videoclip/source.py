"""A video file, opened with distrust: only known containers and codecs, only this one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from service.videoclip.errors import (
    NotAVideo,
    PictureTooLarge,
    UnsupportedCodec,
    UnsupportedContainer,
)

#: Demuxers by libavformat's names. Absent on purpose: playlists and scripts that open other files
#: (hls, dash, concat, image2), pictures (gif, png_pipe, ...), and raw streams without times.
FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf")
#: Opened only to be able to say that there is no video in them.
SOUND_FORMATS = ("flac", "mp3", "wav")
#: Decoders by libavcodec's names.
CODECS = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "libdav1d",
    "av1",
    "mpeg4",
    "msmpeg4",
    "msmpeg4v2",
    "msmpeg4v1",
    "h263",
    "flv",
    "mpeg1video",
    "mpeg2video",
    "theora",
    "mjpeg",
    "prores",
    "dnxhd",
    "vp6",
    "vp6f",
    "wmv1",
    "wmv2",
    "wmv3",
    "vc1",
)

# Sound is never decoded; libavformat wants to look at it while it opens a file.
_SOUND_CODECS = ("aac", "mp3", "mp3float", "opus", "vorbis", "flac", "ac3", "pcm_s16le")


@dataclass(frozen=True)
class Limits:
    """What a video may cost.

    Attributes:
        max_pixels: of one picture as stored; the default admits 4096 x 2304.
        max_duration_seconds: from the first to the last picture.
        max_frames: pictures in the file, used or not.
    """

    max_pixels: int = 4096 * 2304
    max_duration_seconds: float = 2 * 3600.0
    max_frames: int = 500_000


@dataclass(frozen=True)
class OpenVideo:
    """An open file, the stream of moving pictures in it, and a decoder that is ready."""

    container: InputContainer
    stream: VideoStream
    decoder: VideoCodecContext
    time_base: Fraction

    @property
    def container_name(self) -> str:
        """Short name of the container, e.g. ``mov``."""
        return self.container.format.name.split(",")[0]

    @property
    def header_seconds(self) -> float | None:
        """Duration of the video that the header states, None if it states none."""
        if self.stream.duration is not None and self.stream.duration > 0:
            return float(self.stream.duration * self.time_base)
        if self.container.duration is None or self.container.duration <= 0:
            return None
        # Matroska and FLV state when the file ends, counted from 0 and not from its first picture.
        end = self.container.duration / av.time_base
        start = float((self.stream.start_time or 0) * self.time_base)
        return end - start if 0 < start < end else end


@contextmanager
def open_video(path: Path, *, limits: Limits, threads: int = 1) -> Iterator[OpenVideo]:
    """Open the file at `path` for decoding its best video stream.

    Args:
        path: a file; never taken for a URL, whatever its name is.
        limits: `max_pixels` is enforced here, also for pictures that turn out larger than the
            header says.
        threads: of the decoder; 0 lets it choose.

    Raises:
        UnsupportedContainer: not a file of an accepted container.
        NotAVideo: no video stream, or only a cover picture.
        UnsupportedCodec: the stream's codec is not accepted.
        PictureTooLarge: the header announces more than `limits.max_pixels`.
        OSError: the file cannot be read at all.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise UnsupportedContainer("the file is empty", actual=0)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(FORMATS + SOUND_FORMATS),
        # These two reach the decoders that libavformat itself opens to learn about the streams;
        # our own decoder gets them below.
        "codec_whitelist": ",".join(CODECS + _SOUND_CODECS),
        "max_pixels": str(limits.max_pixels),
    }
    try:
        container = av.open(
            f"file:{path.absolute()}", mode="r", options=options, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise UnsupportedContainer(
            "the data is not a video file of an accepted container (MP4, MOV, Matroska, WebM, "
            "AVI, MPEG, FLV, Ogg, ASF), or its header is damaged"
        ) from error
    with container:
        stream = _moving_pictures(container)
        decoder = _prepare_decoder(stream, limits=limits, threads=threads)
        yield OpenVideo(
            container=container,
            stream=stream,
            decoder=decoder,
            time_base=stream.time_base or Fraction(1, av.time_base),
        )


def _moving_pictures(container: InputContainer) -> VideoStream:
    candidates = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not candidates:
        cover = " but a cover picture" if container.streams.video else ""
        raise NotAVideo(f"the file has no video stream{cover}")
    # libavformat's choice goes by bit rate, which many files do not state: a thumbnail track that
    # comes first would win. It decides between streams of the same size.
    best = container.streams.best("video")
    return max(candidates, key=lambda stream: (*_worth(stream), stream is best))


def _worth(stream: VideoStream) -> tuple[bool, int]:
    decoder: VideoCodecContext | None = stream.codec_context
    if decoder is None:
        return False, 0
    return decoder.name in CODECS, decoder.width * decoder.height


def _prepare_decoder(stream: VideoStream, *, limits: Limits, threads: int) -> VideoCodecContext:
    decoder: VideoCodecContext | None = stream.codec_context
    if decoder is None:
        raise UnsupportedCodec("the video stream has a codec that is not known")
    if decoder.name not in CODECS:
        raise UnsupportedCodec(
            f"the video codec {decoder.name} is not accepted", actual=decoder.name
        )
    pixels = decoder.width * decoder.height
    if pixels > limits.max_pixels:
        raise PictureTooLarge(
            f"the pictures have {decoder.width} x {decoder.height} pixels; "
            f"at most {limits.max_pixels} are accepted",
            limit=limits.max_pixels,
            actual=pixels,
        )
    decoder.options = {"max_pixels": str(limits.max_pixels)}
    decoder.thread_count = threads
    if threads != 1:
        decoder.thread_type = "AUTO"
    return decoder
