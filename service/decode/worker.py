"""What runs in a decode child: limits first, then one video after another.

The child opens files that strangers made. It answers in plain numbers and in sentences that we
wrote; pixels go into a slot of the frame arena.
"""

import os
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from service.channel import Channel, Header
from service.frames import Slot, map_slot
from service.videoclip.decoding import Limits, decode_clips, probe
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing, Sampling

_MAX_DESCRIPTORS: Final = 64


def serve(channel: Channel) -> None:
    """Answer `configure`, `probe` and `decode` messages until the parent closes the channel."""
    limits = Limits()
    descriptor = -1
    while (message := channel.receive()) is not None:
        header, _ = message
        if header["op"] == "configure":
            limits = Limits(**header["limits"])
            descriptor = int(header["descriptor"])
            _restrict(memory_bytes=int(header["memory_bytes"]))
            answer: Header = {}
        else:
            # From here on a death is this video's doing.
            channel.send({"id": header["id"], "taken": True})
            allow_processor_seconds(float(header["processor_seconds"]))
            answer = _answer(header, limits=limits, descriptor=descriptor)
        channel.send({"id": header["id"], **answer})


def _answer(header: Header, *, limits: Limits, descriptor: int) -> Header:
    path = Path(header["path"])
    try:
        if header["op"] == "probe":
            return {"info": asdict(probe(path, limits=limits))}
        return _decode(path, header, limits=limits, descriptor=descriptor)
    except VideoError as error:
        return {
            "error": {
                "code": error.code,
                "detail": error.detail,
                "limit": error.limit,
                "actual": error.actual
                if isinstance(error.actual, int | float | str | None)
                else str(error.actual),
            }
        }
    except MemoryError:
        return {"failure": "MemoryError"}
    except Exception as error:  # noqa: BLE001 - reported: the parent logs the type and answers
        # Only the type: the text of a decoding library may hold addresses and paths.
        return {"failure": type(error).__name__}


def _decode(path: Path, header: Header, *, limits: Limits, descriptor: int) -> Header:
    slot = Slot(int(header["slot"]["offset"]), tuple(header["slot"]["shape"]))
    spans: Any = header["spans"]
    clip = decode_clips(
        path,
        sampling=Sampling.model_validate_json(header["sampling"]),
        preprocessing=Preprocessing.model_validate_json(header["preprocessing"]),
        limits=limits,
        spans=None if spans is None else [(float(start), float(end)) for start, end in spans],
        out=map_slot(descriptor, slot=slot),
    )
    return {
        "times": clip.times_seconds.tolist(),
        "info": asdict(clip.info),
        "warnings": [[warning.code, warning.detail] for warning in clip.warnings],
    }


def _restrict(*, memory_bytes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def allow_processor_seconds(seconds: float) -> None:
    """Let this process use `seconds` more of processor time from now on."""
    # The limit counts the whole life of a process, a worker decodes many videos: raise the soft
    # limit to what was used plus what this video may use. At the limit the kernel sends SIGXCPU,
    # which ends the process even in the middle of C code.
    times = os.times()
    soft = int(times.user + times.system + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )
