"""The folder of all state: one service owns it at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path


class StateFolderError(Exception):
    """The folder cannot be used; the message is one line for the operator."""


class StateFolder:
    """``VTAG_DATA_DIR``, created when missing and locked while the service lives.

    The lock is a POSIX record lock: the kernel lets go of it when the process dies in whatever
    way, and child processes do not inherit it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def name(self) -> str:
        """Of this folder; the same at every start: by it a service knows what was its own.

        A copy of the folder gets a name of its own: two services may run on copies of one volume.
        """
        path = self.path / "name"
        if path.exists():
            name, _, number = path.read_text().partition(" ")
            if number == str(path.stat().st_ino):
                return name
        beside = self.path / ".name.new"
        beside.unlink(missing_ok=True)  # half written by a service that was killed
        beside.touch(mode=0o600)
        name = secrets.token_hex(8)
        beside.write_text(f"{name} {beside.stat().st_ino}")
        beside.replace(path)
        return name

    @property
    def spool(self) -> Path:
        """Folder of uploads in flight."""
        return self.path / "spool"

    def acquire(self) -> None:
        """Create and lock the folder.

        Raises:
            StateFolderError: if it cannot be written or another service owns it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateFolderError(
                f"VTAG_DATA_DIR: {self.path} cannot be written: {error.strerror}"
            ) from None
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip()
            os.close(self._lock)
            self._lock = None
            raise StateFolderError(
                f"VTAG_DATA_DIR: {self.path} is in use by another vtag service (process {owner});"
                " set VTAG_DATA_DIR to another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another service have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
