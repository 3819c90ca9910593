"""Waiting for processes of others to end."""

import time

import psutil


def wait_gone(pid: int, *, seconds: float = 10.0) -> None:
    """Wait until no such process runs any more."""
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)
