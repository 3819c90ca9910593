"""What a decode child gives up before it opens the first file of a stranger.

Each layer is tried after it was put into force: what is reported as active was seen to refuse.
A network namespace of its own would add nothing to a process that cannot make a socket, and most
containers forbid it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import av
import numpy as np

from service.decode.landlock import restrict_files
from service.decode.system_calls import restrict_system_calls

SandboxMode = Literal["auto", "require", "off"]

_MAX_DESCRIPTORS: Final = 64
_REFUSED: Final = {errno.EACCES, errno.EPERM, errno.ENOSYS}
_CAPABILITY_VERSION: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24
_LAST_CAPABILITY: Final = 63


@dataclass(frozen=True)
class Protection:
    """What holds a decode child.

    Attributes:
        system_calls: it cannot make sockets, processes, or write files (seccomp).
        files: it can open nothing but Python and its libraries (Landlock).
        reasons: why one of them is not active, in words of the kernel.
    """

    system_calls: bool
    files: bool
    reasons: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether both are active."""
        return self.system_calls and self.files


class SandboxError(OSError):
    """The host does not allow the sandbox that the settings require."""


def limit_resources(*, memory_bytes: int) -> None:
    """Bound memory, descriptors and processes of this process; no file is written, no core left."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def enter(mode: SandboxMode) -> Protection:
    """Give up privileges, files, network and processes; once, for ever, all modules imported.

    Args:
        mode: ``off``: privileges only; else whatever the host allows.
    """
    drop_privileges()
    if mode == "off":
        return Protection(system_calls=False, files=False, reasons=("switched off",))
    reasons: list[str] = []
    files = _try(lambda: restrict_files(readable_paths()), _can_read_foreign_files, reasons)
    system_calls = _try(restrict_system_calls, _can_make_sockets, reasons)
    return Protection(system_calls=system_calls, files=files, reasons=tuple(reasons))


def drop_privileges() -> None:
    """Give up every capability, for the case that the service runs as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root may, only root needs to
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    nothing = ctypes.create_string_buffer(bytes(24))
    # Giving capabilities up is always allowed.
    if libc.capset(ctypes.byref(header), ctypes.byref(nothing)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def readable_paths() -> tuple[Path, ...]:
    """What Python may still want to import or map: its libraries, the system's, this package."""
    names = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    names |= {f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64"}
    names |= {"/etc/ld.so.cache", "/proc/cpuinfo", "/sys/devices/system/cpu"}
    names |= {"/dev/null", "/dev/urandom", "/usr/local/lib"}
    # Wherever a PYTHONPATH or a user's own site folder has them.
    names |= {str(Path(module.__file__).parent.parent) for module in (av, np) if module.__file__}
    return (*sorted(Path(name) for name in names), Path(__file__).resolve().parent.parent)


def _try(restrict: Callable[[], object], is_open: Callable[[], bool], reasons: list[str]) -> bool:
    try:
        restrict()
    except OSError as error:
        reasons.append(f"{error.strerror} (errno {error.errno})")
        return False
    if is_open():
        reasons.append("accepted by the kernel, but it refuses nothing")
        return False
    return True


def _can_read_foreign_files() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return error.errno not in _REFUSED
    return True


def _can_make_sockets() -> bool:
    try:
        socket.socket(socket.AF_UNIX).close()
    except OSError as error:
        return error.errno not in _REFUSED
    return True
