"""Ending processes of others, and waiting for their end."""

import contextlib
import time
from collections.abc import Iterable

import psutil


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill -9 each; one that ended by itself meanwhile, as its parent was killed, is fine."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_gone(pid: int, *, seconds: float = 10.0) -> None:
    """Wait until no such process runs any more."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end between any two looks
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.02)
