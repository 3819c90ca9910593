"""A video file, opened with distrust: only known containers and codecs, only this one file."""

from __future__ import annotations

import os
import stat
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
#: Demuxers and decoders of still pictures, for whoever asks for one; never for videos.
PICTURE_FORMATS = ("jpeg_pipe", "png_pipe", "webp_pipe")
PICTURE_CODECS = ("mjpeg", "png", "webp")
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

#: A file by its path, or a descriptor of it that is open for reading and stays open. A process
#: that was given a descriptor needs no right to open files.
VideoFile = Path | int

# Sound is never decoded; libavformat wants to look at it while it opens a file.
_SOUND_CODECS = ("aac", "mp3", "mp3float", "opus", "vorbis", "flac", "ac3", "pcm_s16le")


@dataclass(frozen=True)
class Limits:
    """What a video may cost.

    Attributes:
        max_pixels: of one picture as stored; the default admits 4096 x 2304.
        max_duration_seconds: from the first to the last picture.
        max_frames: pictures in the file, used or not.
        picture: the file is one still picture, not a video: JPEG, PNG or WebP. It is then a video
            of one frame; nothing else about it differs.
    """

    max_pixels: int = 4096 * 2304
    max_duration_seconds: float = 2 * 3600.0
    max_frames: int = 500_000
    picture: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Demuxers that may open the file."""
        return PICTURE_FORMATS if self.picture else FORMATS

    @property
    def codecs(self) -> tuple[str, ...]:
        """Decoders that may decode it."""
        return PICTURE_CODECS if self.picture else CODECS


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
def open_video(file: VideoFile, *, limits: Limits, threads: int = 1) -> Iterator[OpenVideo]:
    """Open `file` for decoding its best video stream.

    Args:
        file: read from its beginning; a name is never taken for a URL, whatever it looks like.
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
    url, options = _location(file)
    options |= {
        "format_whitelist": ",".join(limits.formats + SOUND_FORMATS),
        # These two reach the decoders that libavformat itself opens to learn about the streams;
        # our own decoder gets them below.
        "codec_whitelist": ",".join(limits.codecs + _SOUND_CODECS),
        "max_pixels": str(limits.max_pixels),
    }
    try:
        container = av.open(url, mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError, IndexError) as error:
        if limits.picture:
            raise UnsupportedContainer("the data is not a JPEG, PNG or WebP picture") from error
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


def _location(file: VideoFile) -> tuple[str, dict[str, str]]:
    """What libavformat calls `file`, and options that allow it this one way to it."""
    if isinstance(file, int):
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode):
            os.lseek(file, 0, os.SEEK_SET)
        url, options = "fd:", {"fd": str(file), "protocol_whitelist": "fd"}
    else:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
        url, options = f"file:{file.absolute()}", {"protocol_whitelist": "file"}
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise UnsupportedContainer("the file is empty", actual=0)
    return url, options


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
    if decoder.name not in limits.codecs:
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
