"""Folders of a model store: written aside, put in place in one step, cleaned up after a kill."""

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOG = logging.getLogger(__name__)
_WRITTEN = ".publishing-"
_REPLACED = ".replaced-"
# linux/fcntl.h and linux/fs.h; Python has no renameat2.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: The system or the file system does not know the call.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


@contextlib.contextmanager
def written_aside(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` that readers of the store do not see; removed at the end.

    It is locked as long as this process lives. Before, what dead processes left is cleaned up:
    their folders are removed, and a revision that was moved away and not replaced is put back.
    """
    with _lock(parent):
        _clean(parent)
        folder = Path(tempfile.mkdtemp(prefix=_WRITTEN, dir=parent))
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        # By its name: after `put` the folder of that name is the one that was replaced, or gone.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def put(written: Path, folder: Path, *, replace: bool) -> None:
    """Give a finished folder its final name, durably. Both lie in the same parent.

    replace: `folder` may exist, and then changes places with `written` in one step: a reader finds
    the old one or the new one, also when the process is killed. Where the system cannot exchange
    (not Linux, some network file systems), it takes two steps, which is logged: a reader in between
    finds nothing, and after a kill in between the next `written_aside` puts the old one back.

    Raises FileExistsError when the folder exists and may not be replaced.
    """
    parent = folder.parent
    sync(written)
    with _lock(parent):
        if not folder.exists():
            written.rename(folder)
        elif not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        elif not exchange(written, folder):
            _LOG.warning("%s: replaced in two steps, this system cannot exchange folders", folder)
            aside = parent / f"{_REPLACED}{folder.name}"
            folder.rename(aside)
            try:
                written.rename(folder)
            except OSError:
                aside.rename(folder)
                raise
            shutil.rmtree(aside)
        # The entry in the parent, and the parent's own in the store.
        flush(parent)
        flush(parent.parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2(2), RENAME_EXCHANGE).

    Returns False, with nothing done, where the system cannot. Raises OSError for other failures.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    names = os.fsencode(one), os.fsencode(other)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def sync(folder: Path) -> None:
    """Bring a folder and its files to the disk."""
    for path in (*folder.iterdir(), folder):
        flush(path)


def flush(path: Path) -> None:
    """Bring one file, or the names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clean(parent: Path) -> None:
    for path in sorted(parent.glob(f"{_REPLACED}*")):
        folder = parent / path.name.removeprefix(_REPLACED)
        if folder.exists():
            shutil.rmtree(path)
        else:
            path.rename(folder)
    for path in sorted(parent.glob(f"{_WRITTEN}*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # Its process holds this lock until it ends, in whatever way.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(path)
        finally:
            os.close(descriptor)
