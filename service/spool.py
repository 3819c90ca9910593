"""Uploads on disk: random names in a private folder, a byte cap, gone on every path."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.errors import ApiError

_FLUSH_BYTES = 1024 * 1024  # one hop to a thread per mebibyte, not per 64 KiB read of the socket
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SpoolFile:
    """A file that is being received; never larger than its cap."""

    def __init__(self, path: Path, *, max_bytes: int, param: str = "video") -> None:
        self.path = path
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._param = param
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    @property
    def sha256(self) -> str:
        """Digest of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> None:
        """Take bytes in; call :meth:`drain` before taking more.

        Raises:
            ApiError: ``body_too_large`` as soon as the cap is passed.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise ApiError(
                "body_too_large",
                f"The video is larger than {self._max_bytes} bytes.",
                param=self._param,
                limit=self._max_bytes,
            )
        self._waiting += data

    async def drain(self, *, everything: bool = False) -> None:
        """Write what waits, in a thread, once it is worth the hop."""
        if self._waiting and (everything or len(self._waiting) >= _FLUSH_BYTES):
            data, self._waiting = self._waiting, bytearray()
            try:
                await asyncio.to_thread(self._write, data)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise _full() from None
                raise

    def _write(self, data: bytearray) -> None:
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        """Close the descriptor; the file stays until the spool removes it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _full() -> ApiError:
    return ApiError(
        "spool_full", "There is no room for this upload now.", param="video", retry_after_seconds=30
    )


class Spool:
    """The private folder uploads wait in while they are decoded."""

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    def open(self) -> None:
        """Create the folder and remove what a killed service left in it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for leftover in self.folder.iterdir():
            leftover.unlink()

    @asynccontextmanager
    async def file(self) -> AsyncIterator[SpoolFile]:
        """Yield a new file and remove it at the end, whatever happens.

        Raises:
            ApiError: ``spool_full`` when the disk has no more than the reserve left.
        """
        if shutil.disk_usage(self.folder).free <= self._reserve_bytes:
            raise _full()
        # The client's file name is not used for anything: FFmpeg acts on names (".m3u8", "%d").
        path = self.folder / secrets.token_hex(16)
        try:
            file = SpoolFile(path, max_bytes=self._max_bytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _full() from None
            raise
        try:
            yield file
        finally:
            file.close()
            path.unlink(missing_ok=True)
