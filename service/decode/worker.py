"""What runs in a decode child: the sandbox first, then one video after another.

The child reads files that strangers made. They come as open descriptors: it needs no right to
open anything. It answers in plain numbers and in sentences that we wrote; pixels go into its
window of shared memory.
"""

import fcntl
import os
import resource
import socket
import time
from dataclasses import asdict, replace
from typing import Any

from service.channel import Channel, Header
from service.decode import parts, stills
from service.decode.sandbox import enter, limit_resources
from service.frames import Slot, map_slot
from service.videoclip.decoding import Limits, decode_clips, probe
from service.videoclip.errors import VideoError
from service.videoclip.header import read_header
from service.videoclip.manifest import Preprocessing, Sampling


def serve(channel: Channel) -> None:
    """Answer `configure`, then `pulse`, `header`, `probe` and `decode`, until it is closed."""
    first = channel.receive()
    if first is None:
        return
    setup, _ = first
    limits = Limits(**setup["limits"])
    window = int(setup["window"])
    # Type and protocol are named: asking the kernel for them will not be allowed.
    files = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=int(setup["files"]))
    protection = enter(setup["sandbox"])
    limit_resources(memory_bytes=int(setup["memory_bytes"]))
    channel.send({"id": setup["id"], **asdict(protection)})
    while (message := channel.receive()) is not None:
        header, _ = message
        if header["op"] == "pulse":
            channel.send({"id": header["id"]})
            continue
        # From here on a death is this video's doing.
        channel.send({"id": header["id"], "taken": True})
        allow_processor_seconds(float(header["processor_seconds"]))
        began = time.monotonic()
        file = _receive_file(files)
        try:
            answer = _answer(header, file=file, limits=limits, window=window)
        finally:
            os.close(file)
        if header.get("timed"):
            answer["worked"] = [began, time.monotonic()]
        channel.send({"id": header["id"], **answer})


def _receive_file(files: socket.socket) -> int:
    _, (file,), _, _ = socket.recv_fds(files, 1, 1)
    # It was opened without waiting for a writer of a pipe. (`os.set_blocking` would take an ioctl.)
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_RDONLY)
    return file


def _answer(header: Header, *, file: int, limits: Limits, window: int) -> Header:
    try:
        if header["op"] == "header":
            return {"header": asdict(read_header(file, limits=limits))}
        if header["op"] == "probe":
            return {"info": asdict(probe(file, limits=limits))}
        if header["op"] in parts.OPERATIONS:
            return parts.answer_part(header, file=file, limits=limits, arena=window)
        if header["op"] in stills.OPERATIONS:
            return stills.answer_picture(header, file=file, limits=limits)
        return _decode(header, file=file, limits=limits, window=window)
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


def _decode(header: Header, *, file: int, limits: Limits, window: int) -> Header:
    slot = Slot(int(header["slot"]["offset"]), tuple(header["slot"]["shape"]))
    spans: Any = header["spans"]
    limits = replace(limits, picture=bool(header.get("picture", False)))
    clip = decode_clips(
        file,
        sampling=Sampling.model_validate_json(header["sampling"]),
        preprocessing=Preprocessing.model_validate_json(header["preprocessing"]),
        limits=limits,
        spans=None if spans is None else [(float(start), float(end)) for start, end in spans],
        out=map_slot(window, slot=slot),
    )
    return {
        "times": clip.times_seconds.tolist(),
        "info": asdict(clip.info),
        "warnings": [[warning.code, warning.detail] for warning in clip.warnings],
    }


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
