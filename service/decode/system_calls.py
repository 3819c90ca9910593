"""A list of the system calls that a decode child may make, put into force by seccomp.

Everything else does not exist for the child: no sockets of any family, no processes or threads, no
signals to others, no writing of files. Unlisted calls fail with ENOSYS and not with EPERM, because
the C library then falls back to what it did on older kernels.

libseccomp would have to be installed by every operator, for a program of 150 instructions of
Linux' classic BPF (`seccomp(2)`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final

# Machine -> (AUDIT_ARCH, column of _CALLS, number of `seccomp` itself).
_MACHINES: Final = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}

# Name -> numbers on x86_64 and aarch64; None: the machine has no such call.
_CALLS: Final[dict[str, tuple[int | None, int]]] = {
    # descriptors that are open: the channel, the video, the frames, standard error
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "dup": (32, 23),
    "dup3": (292, 24),
    "fadvise64": (221, 223),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "ppoll": (271, 73),
    "pselect6": (270, 72),
    # looking at files: Landlock says which
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    # memory
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    # time, and what this machine is
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "times": (100, 153),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    # itself
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
}
# Calls of older days that only x86_64 has.
_OLD_CALLS: Final = {
    "stat": 4,
    "lstat": 6,
    "poll": 7,
    "access": 21,
    "select": 23,
    "readlink": 89,
    "time": 201,
}
_OPEN: Final = 2  # x86_64 only
_OPENAT: Final = (257, 56)
_FCNTL: Final = (72, 25)
_IOCTL: Final = (16, 29)
_PRCTL: Final = (157, 167)
_PRLIMIT: Final = (302, 261)
_TGKILL: Final = (234, 131)

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
_FCNTL_COMMANDS: Final = (0, 1, 2, 3, 4, 1030)  # duplicate, flags of descriptor and file
_PR_SET_NAME: Final = 15

# Instructions: load a word of seccomp_data; jump if equal, if at least, if any bit is set; return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_CALLS: Final = 0x40000000

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_PR_SET_NO_NEW_PRIVS: Final = 38

Instruction = tuple[int, int, int, int]


def program(*, machine: str, pid: int) -> list[Instruction]:
    """Return the filter as (code, jump if true, jump if false, operand).

    Args:
        machine: as `platform.machine()` says.
        pid: the process that may signal itself (`abort` does).

    Raises:
        OSError: ENOSYS: this machine is not known here.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}")
    arch, column, _ = _MACHINES[machine]
    lines: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_CALLS),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    numbers = [numbers[column] for numbers in _CALLS.values()]
    if machine == "x86_64":
        numbers += _OLD_CALLS.values()
        lines += _unless_bits(_OPEN, argument=1, bits=_WRITING)
    for number in numbers:
        if number is not None:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines += _unless_bits(_OPENAT[column], argument=2, bits=_WRITING)
    lines += _if_among(_FCNTL[column], argument=1, values=_FCNTL_COMMANDS)
    lines += _if_among(_PRCTL[column], argument=0, values=(_PR_SET_NAME,))
    lines += _if_among(_PRLIMIT[column], argument=0, values=(0,))
    lines += _if_among(_TGKILL[column], argument=0, values=(pid,))
    # "not a terminal": what Python asks every file that it opens.
    lines += [(_EQUAL, 0, 1, _IOCTL[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOTTY)]
    lines.append((_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
    return lines


def restrict_system_calls() -> None:
    """Leave this process, all threads of it, nothing but the calls of the list. For ever.

    Raises:
        OSError: the kernel or the container does not allow a filter.
    """
    machine = platform.machine()
    lines = program(machine=machine, pid=os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(lines), ctypes.addressof(code)), struct.calcsize("@HP")
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    result = libc.syscall(
        ctypes.c_long(_MACHINES[machine][2]),
        ctypes.c_long(_SET_MODE_FILTER),
        ctypes.c_long(_ALL_THREADS),
        ctypes.c_void_p(ctypes.addressof(header)),
    )
    if result != 0:
        raise OSError(ctypes.get_errno(), "seccomp is refused")


def _argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index)  # its low half; both machines: low one first


def _unless_bits(number: int, *, argument: int, bits: int) -> list[Instruction]:
    return [
        (_EQUAL, 0, 4, number),
        _argument(argument),
        (_ANY_BIT, 0, 1, bits),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _if_among(number: int, *, argument: int, values: Sequence[int]) -> list[Instruction]:
    tests: list[Instruction] = []
    for value in values:
        tests += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [
        (_EQUAL, 0, len(tests) + 2, number),
        _argument(argument),
        *tests,
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
