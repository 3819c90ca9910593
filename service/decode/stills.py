"""Small pictures of a video, for people: one as JPEG or WebP, or a few that move as WebP.

Both ends of each message are here, as in `service.decode.parts`. Pictures are shrunk and
compressed in the child; its answer is bytes that are checked to be what was asked for.
"""

from __future__ import annotations

import base64
import io
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

# The formats are named here: Pillow would look for them when the sandbox is closed.
from PIL import Image, JpegImagePlugin, WebPImagePlugin  # noqa: F401

from service.channel import Header
from service.decode.answers import decode_failed
from service.decode.parts import Asked
from service.videoclip.decoding import Limits, VideoFile, decode_planned
from service.videoclip.errors import TimeRange
from service.videoclip.timeline import Timeline, Times

_log = logging.getLogger(__name__)

OPERATIONS: Final = frozenset({"picture"})
PictureFormat = Literal["jpeg", "webp"]

_MAX_SIDE: Final = 2160
_MAX_BYTES: Final = 8 * 1024 * 1024
_MOST_MOVING: Final = 24  # pictures of a preview
_MOVING_FPS: Final = 8.0
_SLOWEST_SECONDS: Final = 0.25  # a preview of a long part is shown faster than it happened
_QUALITY: Final = {"jpeg": 82, "webp": 78}
_MOVING_QUALITY: Final = 70
_SHARE: Final = 0.05  # of the file that is decoded, for predictions


@dataclass(frozen=True)
class PictureWish:
    """What is wanted of a video.

    Attributes:
        start: seconds; None: the middle of the video.
        end: seconds; None: one picture, else one that moves from `start` to `end`.
        width: pixels, at most; never more than the video has.
        kind: of file; what moves is WebP.
    """

    start: float | None
    end: float | None
    width: int
    kind: PictureFormat


async def ask_picture(pool: Asked, path: Path, wish: PictureWish) -> bytes:
    """Return the file that `wish` describes, made of the video at `path`.

    Raises:
        VideoError: as `DecodePool.decode`; ``time_range``: the video is shorter.
    """
    answer = await pool.ask(path, {"op": "picture", "wish": asdict(wish)}, share=_SHARE)
    try:
        data = base64.b64decode(answer["picture"], validate=True)
    except (KeyError, TypeError, ValueError):
        data = b""
    is_right = data.startswith(b"\xff\xd8\xff")
    if wish.kind == "webp":
        is_right = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not is_right or len(data) > _MAX_BYTES:
        _log.warning("a decode worker answered nonsense")
        raise decode_failed()
    return data


def answer_picture(header: Header, *, file: VideoFile, limits: Limits) -> Header:
    """Answer one of `OPERATIONS`, in the child.

    Raises:
        VideoError, OSError: as `service.videoclip.decoding.decode_planned`.
    """
    wish = PictureWish(**header["wish"])

    def shape(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _shrunk(picture, width=wish.width)

    clip = decode_planned(
        file, plan=lambda timeline: _times(wish, timeline), shape=shape, limits=limits
    )
    pictures = [Image.fromarray(picture) for picture in clip.pixels[0]]
    shown_seconds = 0.0
    if wish.end is not None:
        end = min(wish.end, clip.info.duration_seconds)
        shown_seconds = min((end - (wish.start or 0.0)) / len(pictures), _SLOWEST_SECONDS)
    return {"picture": base64.b64encode(_file(pictures, wish, shown_seconds)).decode()}


def _times(wish: PictureWish, timeline: Timeline) -> Times:
    duration = timeline.end_seconds
    start = duration / 2 if wish.start is None else wish.start
    if start >= duration:
        raise TimeRange(
            f"the video ends after {duration:.3f} seconds",
            limit=round(duration, 3),
            actual=start,
        )
    if wish.end is None:
        return np.array([[start]])
    end = min(wish.end, duration)
    count = min(_MOST_MOVING, max(2, math.ceil((end - start) * _MOVING_FPS)))
    # The middles of equal parts, so that neither the first nor the last is from another scene.
    places = (np.arange(count, dtype=np.float64)[None] + 0.5) / count
    times: Times = (start + places * (end - start)).astype(np.float64)
    return times


def _shrunk(picture: NDArray[np.uint8], *, width: int) -> NDArray[np.uint8]:
    height, across, _ = picture.shape
    scale = min(1.0, width / across, _MAX_SIDE / height)
    size = (max(1, round(across * scale)), max(1, round(height * scale)))
    image = Image.fromarray(np.ascontiguousarray(picture))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def _file(pictures: list[Image.Image], wish: PictureWish, shown_seconds: float) -> bytes:
    output = io.BytesIO()
    options: dict[str, Any] = {"quality": _QUALITY[wish.kind]}
    if wish.end is not None:
        options = {
            "quality": _MOVING_QUALITY,
            "method": 3,
            "save_all": True,
            "append_images": pictures[1:],
            "duration": max(1, round(1000 * shown_seconds)),
            "loop": 0,
        }
    pictures[0].save(output, format=wish.kind.upper(), **options)
    return output.getvalue()
