"""What can be wrong with a video, in words that are safe to show to whoever sent it.

No error and no warning here carries text of a library or a path of the server: `detail` is
written by us, `limit` and `actual` are plain values.
"""

# ruff: noqa: N818 - the names say what the video is, as they read in `except UnsupportedCodec`
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class VideoError(Exception):
    """A video, or the part of it that was asked for, cannot be used.

    Attributes:
        code: stable machine-readable name of the problem, one per subclass unless given.
        detail: one sentence for the person who sent the video.
        limit: the limit that was passed, if the problem is a limit.
        actual: the value that passed it.
    """

    default_code: ClassVar[str] = "video_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        limit: float | None = None,
        actual: object | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code if code is not None else self.default_code
        self.detail = detail
        self.limit = limit
        self.actual = actual

    def __reduce__(
        self,
    ) -> tuple[object, tuple[type[VideoError], str, str, float | None, object | None]]:
        # Errors cross the border of the decoding process; the default pickling of exceptions
        # would lose the keyword arguments.
        return (_restore, (type(self), self.detail, self.code, self.limit, self.actual))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VideoError):
            return NotImplemented
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self.code, self.detail))

    def _values(self) -> tuple[str, str, float | None, object | None]:
        return (self.code, self.detail, self.limit, self.actual)


def _restore(
    kind: type[VideoError], detail: str, code: str, limit: float | None, actual: object | None
) -> VideoError:
    return kind(detail, code=code, limit=limit, actual=actual)


class UnsupportedContainer(VideoError):
    """The bytes are no video file of a container that is accepted."""

    default_code = "unsupported_container"


class NotAVideo(VideoError):
    """A container without moving pictures: sound only, or sound with a cover picture."""

    default_code = "no_video_stream"


class UnsupportedCodec(VideoError):
    """The pictures are compressed in a way that is not accepted."""

    default_code = "unsupported_codec"


class NoFrames(VideoError):
    """Not one frame could be decoded."""

    default_code = "no_frames"


class PictureTooLarge(VideoError):
    """A picture has more pixels than allowed; `limit` and `actual` count pixels."""

    default_code = "picture_too_large"


class VideoTooLong(VideoError):
    """More seconds or more frames than allowed; `limit` and `actual` say how many."""

    default_code = "video_too_long"


class TimeRange(VideoError):
    """A start or end that does not lie in the video; times are seconds."""

    default_code = "time_range"


@dataclass(frozen=True)
class VideoWarning:
    """Something a client should know about an answer that was still possible.

    Codes: ``truncated_stream``, ``damaged_stream``, ``timestamps_repaired``,
    ``frames_repeated``, ``duration_unknown``, ``non_square_pixels``.
    """

    code: str
    detail: str
