"""Ending processes of others, waiting for their end, and files that make them hang."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill -9 each; one that ended by itself meanwhile, as its parent was killed, is fine."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_gone(pid: int, *, seconds: float = 60.0) -> None:
    """Wait until no such process runs any more."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end between any two looks
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.02)


@contextlib.contextmanager
def endless_file(path: Path) -> Iterator[Path]:
    """Make `path` a file that never says anything and never ends: its readers hang."""
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # while somebody may write, a reader waits
    try:
        yield path
    finally:
        os.close(writer)


def shared_memory(processes: Iterable[psutil.Process]) -> set[Path]:
    """Return the named shared memory that these processes have mapped."""
    found: set[Path] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {Path(each.path) for each in process.memory_maps()}
    return {path for path in found if path.parent == Path("/dev/shm")}  # noqa: S108


def holds(pid: int, path: Path) -> bool:
    """Whether a process has `path` open."""
    try:
        return any(str(link.readlink()) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it, or the descriptor, is gone meanwhile
        return False
