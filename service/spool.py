"""Uploads on disk: random names in a private folder, a byte cap, gone on every path."""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from service.errors import ApiError, exhausted

_FLUSH_BYTES = 1024 * 1024  # one hop to a thread per mebibyte, not per 64 KiB read of the socket
_BASE64_CHUNK = 4 * 1024 * 1024  # a multiple of 4: chunks decode one by one
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


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
        self.require(self.size_bytes + len(data))
        self.size_bytes += len(data)
        self._waiting += data

    def require(self, size_bytes: int) -> None:
        """Raise ApiError ``body_too_large`` if so many bytes do not fit."""
        if size_bytes > self._max_bytes:
            raise ApiError(
                "body_too_large",
                f"The {self._param} is larger than {self._max_bytes} bytes.",
                param=self._param,
                limit=self._max_bytes,
            )

    async def drain(self, *, everything: bool = False) -> None:
        """Write what waits, in a thread, once it is worth the hop."""
        if self._waiting and (everything or len(self._waiting) >= _FLUSH_BYTES):
            data, self._waiting = self._waiting, bytearray()
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, data))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The thread goes on. Closed under it, the descriptor's number could become
                # another upload's, and these bytes would be written there.
                while not writing.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([writing])
                raise
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

    @property
    def has_room(self) -> bool:
        """Whether the disk has more than the reserve left."""
        return shutil.disk_usage(self.folder).free > self._reserve_bytes

    def disk(self) -> dict[str, float]:
        """Return bytes: the `size` of the disk, what is `free`, and the `reserve`."""
        try:
            found = shutil.disk_usage(self.folder)
        except OSError:  # as `has_room` will tell whoever sends something
            return {"free": 0.0, "reserve": self._reserve_bytes}
        return {"size": found.total, "free": found.free, "reserve": self._reserve_bytes}

    def require_room(self) -> None:
        """Raise ApiError ``spool_full`` when the disk has no more than the reserve left."""
        if not self.has_room:
            raise _full()

    @asynccontextmanager
    async def file(self) -> AsyncIterator[SpoolFile]:
        """Yield a new file and remove it at the end, whatever happens.

        Raises:
            ApiError: ``spool_full`` when the disk has no more than the reserve left; ``saturated``
                when this process may open no more files.
        """
        self.require_room()
        # The client's file name is not used for anything: FFmpeg acts on names (".m3u8", "%d").
        path = self.folder / secrets.token_hex(16)
        try:
            file = SpoolFile(path, max_bytes=self._max_bytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _full() from None
            raise exhausted(error) or error from None
        try:
            yield file
        finally:
            file.close()
            path.unlink(missing_ok=True)


async def spool_base64(text: str, video: SpoolFile, *, param: str = "video.data") -> None:
    """Decode base64 (standard alphabet, padded) into the spool, piece by piece.

    Raises:
        ApiError: ``invalid_base64`` or ``body_too_large``.
    """
    for start in range(0, len(text), _BASE64_CHUNK):
        piece = text[start : start + _BASE64_CHUNK]
        try:
            data = base64.b64decode(piece, validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(
                "invalid_base64", f"{param} is not standard, padded base64.", param=param
            ) from None
        video.feed(data)
        await video.drain()
    await video.drain(everything=True)
