"""Videos in a folder: each under its digest, without a name or an ending that anything acts on."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from service.media.store import (
    CHUNK_BYTES,
    MediaFullError,
    MediaMissingError,
    MediaSetupError,
    MediaUnavailableError,
    StoredFile,
)

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Another file system, or one that has no links.
_NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES}
_OWNER: Final = "owner"


class FolderStore:
    """`MediaStore` in a private folder.

    Files are written beside their place, synced, and renamed. On the file system of the spool an
    upload is not copied but linked.

    Args:
        root: made when missing; services that share an index may share it.
        reserve_bytes: of the disk, left free.
        writer: name of this service: of files on their way it removes its own at the start.
    """

    def __init__(self, root: Path, *, reserve_bytes: int, writer: str) -> None:
        self._root = root
        self._coming = root / "coming"
        self._reserve_bytes = reserve_bytes
        self._writer = writer

    async def start(self) -> None:
        """Make the folder; remove what a killed run of this service was writing."""
        try:
            for folder in (self._root, self._coming):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for rest in self._coming.glob(f"{self._writer}-*"):
                rest.unlink()
            probe = self._beside()
            probe.touch(mode=0o400, exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise MediaSetupError(
                f"VTAG_MEDIA_URL: {self._root} cannot be written: {error.strerror}"
            ) from None

    async def claim(self, owner: str) -> bool:
        """Write the owner's name, if there is none."""
        path = self._root / _OWNER
        beside = self._beside()
        try:
            beside.write_text(owner)
            with suppress(FileExistsError):
                os.link(beside, path)
            return path.read_text() == owner
        except OSError:
            return False
        finally:
            beside.unlink(missing_ok=True)

    async def put(self, path: Path, *, sha256: str) -> None:
        """Keep a copy of the file at `path`."""
        try:
            await asyncio.to_thread(self._put, path, self._path(sha256))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise MediaFullError from None
            raise MediaUnavailableError from error

    def _put(self, source: Path, target: Path) -> None:
        beside = self._beside()
        try:
            try:
                os.link(source, beside)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                if shutil.disk_usage(self._root).free - source.stat().st_size < self._reserve_bytes:
                    raise OSError(errno.ENOSPC, "the reserve would be used") from None
                shutil.copyfile(source, beside)
            beside.chmod(0o400)
            _sync(beside)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            beside.replace(target)
            _sync(target.parent)
            _sync(self._root)
        finally:
            # A rename between two links of one file leaves both.
            beside.unlink(missing_ok=True)

    async def size(self, sha256: str) -> int | None:
        """Return how many bytes it has."""
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MediaUnavailableError from error

    async def read(self, sha256: str, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of it."""
        try:
            file = self._path(sha256).open("rb")
        except FileNotFoundError:
            raise MediaMissingError from None
        except OSError as error:
            raise MediaUnavailableError from error
        with file:
            file.seek(start)
            while length > 0:
                try:
                    chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, length))
                except OSError as error:
                    raise MediaUnavailableError from error
                if not chunk:
                    return
                length -= len(chunk)
                yield chunk

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        """Lend the file itself."""
        path = self._path(sha256)
        if not path.exists():
            raise MediaMissingError
        yield path

    async def delete(self, sha256: str) -> None:
        """Remove it."""
        try:
            await asyncio.to_thread(self._path(sha256).unlink, missing_ok=True)
        except OSError as error:
            raise MediaUnavailableError from error

    async def files(self) -> AsyncIterator[list[StoredFile]]:
        """Yield everything, folder by folder."""
        try:
            folders = [path for path in self._root.iterdir() if len(path.name) == 2]
            for folder in sorted(folders):
                yield await asyncio.to_thread(lambda: list(_stored(folder)))  # noqa: B023 - awaited
        except OSError as error:
            raise MediaUnavailableError from error

    async def clean(self, *, age_seconds: float) -> None:
        """Remove what a killed writer left."""

        def work() -> None:
            for path in self._coming.iterdir():
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_ctime >= age_seconds:
                        path.unlink()

        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise MediaUnavailableError from error

    def _beside(self) -> Path:
        return self._coming / f"{self._writer}-{secrets.token_hex(16)}"

    def _path(self, sha256: str) -> Path:
        if _DIGEST.fullmatch(sha256) is None:
            raise ValueError(f"{sha256[:80]!r} is no digest")
        return self._root / sha256[:2] / sha256


def _stored(folder: Path) -> Iterator[StoredFile]:
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            if _DIGEST.fullmatch(entry.name) is not None:
                # When it came to its place, not when its bytes were received.
                yield StoredFile(entry.name, now - entry.stat(follow_symlinks=False).st_ctime)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
