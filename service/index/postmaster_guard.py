"""What a killed Postgres leaves behind, and how its folder is made fit for a new one.

Postgres trusts ``postmaster.pid`` (and the lock beside its socket): when the file of a killed
server names a process that is alive by now, which is the normal case in a restarted container, it
refuses to start for ever. And a server that is started while backends of its killed predecessor
still end finds their shared memory in use.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

logger = logging.getLogger("vtag.postgres")

_LOCK_FILE = "postmaster.pid"
_POLL_SECONDS = 0.05


def clear(data: Path, *, socket: Path, patience_seconds: float = 10.0) -> None:
    """Make the folder of a cluster ready for a new postmaster. Blocks; call it in a thread.

    The caller owns the folder, so whatever of Postgres still runs in it belongs to a service that
    was killed. It is on its way out (`embedded` asks the kernel for that) and gets
    ``patience_seconds``; then it is stopped, then killed.

    Args:
        data: data folder of the cluster.
        socket: path of its Unix socket.
        patience_seconds: how long to wait before each stronger way.
    """
    for strength in (None, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        rest = list(running_in(data))
        if not rest:
            break
        if strength is not None:
            logger.warning("stopping what a killed service left", extra={"processes": len(rest)})
            for process in rest:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(strength)
        _wait(rest, seconds=patience_seconds)
    # Nothing of this cluster runs now: a lock that still names a process names a stranger.
    for stale in (data / _LOCK_FILE, socket, socket.with_name(f"{socket.name}.lock")):
        stale.unlink(missing_ok=True)


def running_in(data: Path) -> Iterator[psutil.Process]:
    """Yield the Postgres processes whose working folder is ``data``.

    Every process of a server works in its data folder, and the kernel vouches for it: a number
    in a file does not, process numbers are used again.
    """
    wanted = str(data.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and process.cwd() == wanted:
                yield process


def _wait(processes: list[psutil.Process], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.wait(timeout=max(_POLL_SECONDS, end - time.monotonic()))
