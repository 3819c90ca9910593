"""What decode children answer, checked: they have read a stranger's file and may say anything."""

import logging
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.frames import Slot
from service.videoclip import errors
from service.videoclip.decoding import VideoInfo
from service.videoclip.errors import VideoError, VideoWarning
from service.videoclip.header import VideoHeader

_log = logging.getLogger(__name__)

_MAX_TEXT: Final = 500
_MAX_CODEC: Final = 40
_KINDS: Final[dict[str, type[VideoError]]] = {
    kind.default_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VideoError)
}


@dataclass(frozen=True)
class DecodedInfo:
    """What decoding tells beside the pixels, which are in the slot.

    Attributes:
        times_seconds: (clips, frames) float64, times of the frames really used.
    """

    times_seconds: npt.NDArray[np.float64]
    info: VideoInfo
    warnings: tuple[VideoWarning, ...]


def decode_failed() -> VideoError:
    """Return the error for a decoder that failed, died, or answered nonsense."""
    return VideoError("The decoder failed on this video.", code="decode_failed")


def checked(answer: Header) -> Header:
    """Return `answer` if it is no error.

    Raises:
        VideoError: what the child found wrong, or `decode_failed`.
    """
    if "failure" in answer:
        _log.warning("decoding failed with %.80s", answer["failure"])
        raise decode_failed()
    if "error" not in answer:
        return answer
    values = answer["error"]
    try:
        code, detail = str(values["code"])[:_MAX_TEXT], str(values["detail"])[:_MAX_TEXT]
        limit, actual = values["limit"], values["actual"]
    except (KeyError, TypeError):
        raise decode_failed() from None
    raise _KINDS.get(code, VideoError)(detail, code=code, limit=limit, actual=actual)


def video_info(answer: Header) -> VideoInfo:
    """Return what a child found out about a video.

    Raises:
        VideoError: `decode_failed`: the answer does not say it.
    """
    try:
        return VideoInfo(**answer["info"])
    except (KeyError, TypeError):
        _log.warning("a decode worker answered nonsense")
        raise decode_failed() from None


def video_header(answer: Header) -> VideoHeader:
    """Return what a child read in the header of a video.

    Raises:
        VideoError: `decode_failed`: the answer does not say it, or nothing that can be true.
    """
    try:
        header = VideoHeader(**answer["header"])
        numbers = [header.duration_seconds, header.fps, header.key_seconds]
        sizes = [header.width, header.height, header.size_bytes]
        plausible = all(n is None or 0 < float(n) < 1e9 for n in numbers)
        plausible &= all(isinstance(size, int) and 0 <= size < 1 << 48 for size in sizes)
        if plausible and isinstance(header.codec, str) and len(header.codec) < _MAX_CODEC:
            return header
    except (KeyError, TypeError, ValueError):
        pass
    _log.warning("a decode worker answered nonsense")
    raise decode_failed()


def decoded_info(answer: Header, *, slot: Slot) -> DecodedInfo:
    """Return what a child says about the pixels that it put into `slot`.

    Raises:
        VideoError: `decode_failed`: the answer does not say it, or not for this slot.
    """
    try:
        times = np.asarray(answer["times"], np.float64)
        warnings = tuple(
            VideoWarning(str(code)[:_MAX_TEXT], str(detail)[:_MAX_TEXT])
            for code, detail in answer["warnings"]
        )
    except (KeyError, TypeError, ValueError):
        _log.warning("a decode worker answered nonsense")
        raise decode_failed() from None
    if times.shape != slot.shape[:2] or not np.all(np.isfinite(times)):
        _log.warning("a decode worker answered nonsense")
        raise decode_failed()
    return DecodedInfo(times_seconds=times, info=video_info(answer), warnings=warnings)
