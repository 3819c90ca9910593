"""A child for tests that does as it is told, good or bad."""

import os
import resource
import signal
import time
from pathlib import Path

from service.channel import Channel, Header
from service.decode.worker import allow_processor_seconds


def serve(channel: Channel) -> None:
    """Answer messages until the parent closes the channel."""
    while (message := channel.receive()) is not None:
        header, payload = message
        answer, output = _obey(header, payload, channel)
        channel.send({"id": header["id"], **answer}, output)


def _obey(header: Header, payload: bytes, channel: Channel) -> tuple[Header, bytes]:
    order = header["order"]
    if order == "echo":
        return {"said": header["text"]}, payload
    if order == "describe":
        links = {}
        for entry in sorted(Path("/proc/self/fd").iterdir()):
            try:
                links[entry.name] = str(entry.readlink())
            except OSError:
                continue  # the one that listed the folder
        return {
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "descriptors": links,
            "group": os.getpgid(0),
            "interrupt_ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        }, b""
    if order == "die":
        os.kill(os.getpid(), header["signal"])
    if order == "hang":
        time.sleep(1000)
    if order == "spin":
        allow_processor_seconds(header["seconds"])
        while True:
            pass
    if order == "used":
        return {"seconds": resource.getrusage(resource.RUSAGE_SELF).ru_utime}, b""
    if order == "garbage":
        os.write(channel.fileno(), header["text"].encode("latin-1"))
        time.sleep(1000)
    return {}, b""
