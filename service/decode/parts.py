"""Long videos in parts: what is asked of a decode child beside whole clips, and its answers.

A timeline is asked once; pictures at times that were planned from it, and cuts between shots, are
asked part by part. Both ends of each message are here. What a child answers is checked: it has
read a stranger's file and may say anything.
"""

import base64
import itertools
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.decode.answers import DecodedInfo, decode_failed, decoded_info, video_info
from service.frames import Slot, map_slot
from service.videoclip.decoding import Limits, VideoFile, VideoInfo
from service.videoclip.manifest import Preprocessing
from service.videoclip.moments import decode_at, read_timeline
from service.videoclip.shots import find_cuts
from service.videoclip.timeline import Timeline, Times

_log = logging.getLogger(__name__)

OPERATIONS: Final = frozenset({"timeline", "at", "cuts"})


class Asked(Protocol):
    """Who passes a message to a child; `DecodePool` does."""

    async def ask(self, path: Path, header: Header, *, share: float) -> Header:
        """Return the answer of a child about the video at `path`; see `DecodePool.ask`."""


async def ask_timeline(pool: Asked, path: Path) -> tuple[VideoInfo, Timeline]:
    """Return facts of the video at `path` and when its pictures are shown.

    Raises:
        VideoError: as `DecodePool.decode`.
    """
    answer = await pool.ask(path, {"op": "timeline"}, share=1.0)
    info = video_info(answer)
    try:
        pts = np.frombuffer(base64.b64decode(answer["pts"], validate=True), np.float64)
        packed = np.frombuffer(base64.b64decode(answer["keyframe"], validate=True), np.uint8)
        keyframe = np.unpackbits(packed, count=len(pts)).astype(bool)
        end = float(answer["end"])
        finite = math.isfinite(end) and np.all(np.isfinite(pts))
        if not finite or len(packed) != -(-len(pts) // 8):
            raise ValueError("times that are none, or another number of flags")
        return info, Timeline(pts_seconds=pts, end_seconds=end, keyframe=keyframe)
    except (KeyError, TypeError, ValueError):
        _log.warning("a decode worker answered nonsense")
        raise decode_failed() from None


async def ask_pictures(
    pool: Asked,
    path: Path,
    times: Times,
    *,
    preprocessing: Preprocessing,
    slot: Slot,
    share: float,
) -> DecodedInfo:
    """Decode the pictures on screen at `times` into `slot`; see `service.videoclip.moments`.

    Args:
        pool: of the children.
        path: a local file.
        times: float64 (V, T), seconds.
        preprocessing: resize and crop.
        slot: its shape must be (V, T, S, S, 3).
        share: of the video that the times lie in, for predictions.

    Raises:
        VideoError: as `DecodePool.decode`.
    """
    message = {
        "op": "at",
        "times": times.tolist(),
        "preprocessing": preprocessing.model_dump_json(),
        "slot": {"offset": slot.offset, "shape": list(slot.shape)},
    }
    return decoded_info(await pool.ask(path, message, share=share), slot=slot)


async def ask_cuts(
    pool: Asked, path: Path, *, start: float, end: float, share: float
) -> list[float]:
    """Return when shots begin in [start, end), seconds, ascending; see `service.videoclip.shots`.

    Raises:
        VideoError: as `DecodePool.decode`.
    """
    answer = await pool.ask(path, {"op": "cuts", "start": start, "end": end}, share=share)
    try:
        told = answer["cuts"]
        cuts = [float(time) for time in told] if isinstance(told, list) else [math.nan]
    except (KeyError, TypeError, ValueError):
        cuts = [math.nan]
    ascending = all(a < b for a, b in itertools.pairwise([*cuts, end]))
    if not ascending or any(not start <= cut for cut in cuts):
        _log.warning("a decode worker answered nonsense")
        raise decode_failed()
    return cuts


def answer_part(header: Header, *, file: VideoFile, limits: Limits, arena: int) -> Header:
    """Answer one of `OPERATIONS`, in the child.

    Raises:
        VideoError, OSError: as `service.videoclip.decoding.decode_clips`.
    """
    if header["op"] == "timeline":
        info, timeline = read_timeline(file, limits=limits)
        return {
            "info": asdict(info),
            # Exact: a time that is rounded down finds the picture before.
            "pts": _text(timeline.pts_seconds),
            "keyframe": _text(np.packbits(timeline.keyframe)),
            "end": timeline.end_seconds,
        }
    if header["op"] == "cuts":
        start, end = float(header["start"]), float(header["end"])
        return {"cuts": find_cuts(file, start=start, end=end, limits=limits)}
    slot = Slot(int(header["slot"]["offset"]), tuple(header["slot"]["shape"]))
    clip = decode_at(
        file,
        np.asarray(header["times"], np.float64),
        preprocessing=Preprocessing.model_validate_json(header["preprocessing"]),
        limits=limits,
        out=map_slot(arena, slot=slot),
    )
    return {
        "times": clip.times_seconds.tolist(),
        "info": asdict(clip.info),
        "warnings": [[warning.code, warning.detail] for warning in clip.warnings],
    }


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
