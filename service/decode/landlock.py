"""Which files a decode child may read, put into force by Landlock (Linux 5.13 and newer).

Asked of the kernel directly: the bindings on PyPI are pre-releases, and it takes three calls.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_ONLY_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
# First version that knows it -> number of rights on files (bits from 0): all are handled, and so
# refused where no rule gives them.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
_TCP: Final = (4, 0b11)  # from version 4: bind and connect
_SCOPES: Final = (6, 0b11)  # from version 6: abstract sockets and signals to processes outside


def version() -> int:
    """Version of Landlock that the kernel offers; 0: none."""
    found = _call(_CREATE_RULESET, None, 0, _ONLY_VERSION)
    return max(0, found)


def restrict_files(readable: Iterable[Path]) -> int:
    """Let this thread and its children open nothing but what lies in `readable`, for reading.

    Descriptors that are open stay as they are. Paths that do not exist are passed over.

    Returns:
        The version of Landlock that is in force.

    Raises:
        OSError: the kernel has none, or refuses.
    """
    available = version()
    if available == 0:
        raise OSError(ctypes.get_errno(), "the kernel offers no Landlock")
    bits = max(count for first, count in _FILE_RIGHTS.items() if first <= available)
    words = [(1 << bits) - 1]
    words += [rights for first, rights in (_TCP, _SCOPES) if first <= available]
    ruleset = struct.pack(f"@{len(words)}Q", *words)
    handle = _checked(_call(_CREATE_RULESET, ruleset, len(ruleset), 0))
    try:
        for path in readable:
            _allow(handle, path)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs is refused")
        _checked(_call(_RESTRICT_SELF, handle, 0))
    finally:
        os.close(handle)
    return available


def _allow(ruleset: int, path: Path) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    rights = _READ_FILE | _EXECUTE  # a shared library is mapped for execution
    if path.is_dir():
        rights |= _READ_DIR
    try:
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0))
    finally:
        os.close(handle)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    values: list[ctypes.c_long | ctypes.c_char_p] = [
        ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value)
        for value in arguments
    ]
    return int(libc.syscall(ctypes.c_long(number), *values))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    return result
