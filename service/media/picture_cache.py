"""Pictures made from videos, on disk: the last used, within a bound, each made once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("vtag.media")


@dataclass
class _Making:
    """A picture that is being made for whoever asks meanwhile."""

    task: asyncio.Task[bytes]
    waiters: int = 0
    is_wanted: bool = True


class PictureCache:
    """Files below a folder of our own, named by the video's digest and what was asked.

    It is a cache: what cannot be read is made again, what cannot be written is not kept.

    Args:
        folder: made when missing; nobody else writes into it.
        max_bytes: of all files; the least recently used go first.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self.total_bytes = 0
        """Of the files that are there."""

    async def start(self) -> None:
        """Find what an earlier run left; the oldest are the first to go.

        Raises:
            OSError: the folder cannot be used.
        """

        def look() -> list[tuple[float, str, int]]:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = []
            for path in self._folder.iterdir():
                if path.name.startswith("."):
                    path.unlink()  # it was being written
                    continue
                facts = path.stat()
                found.append((facts.st_mtime, path.name, facts.st_size))
            return sorted(found)

        for _, name, size in await asyncio.to_thread(look):
            self._sizes[name] = size
            self.total_bytes += size
        await self._shrink()

    async def get(self, sha256: str, asked: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the picture that was asked for, or make it and keep it.

        Of several who ask at once the first makes it; it goes on until the last has left.

        Args:
            sha256: of the video.
            asked: everything that the picture depends on beside the video.
            make: makes it; what it raises goes to all who wait for it.
        """
        name = f"{sha256}-{hashlib.sha256(asked.encode()).hexdigest()[:32]}"
        kept = await self._read(name)
        if kept is not None:
            return kept
        making = self._making.get(name)
        if making is None:
            task = asyncio.ensure_future(self._make(name, make))
            making = self._making[name] = _Making(task)
        making.waiters += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiters -= 1
            if making.waiters == 0 and not making.task.done():
                making.task.cancel()
                await asyncio.wait({making.task})

    def has(self, sha256: str, asked: str) -> bool:
        """Tell whether a picture need not be made."""
        return f"{sha256}-{hashlib.sha256(asked.encode()).hexdigest()[:32]}" in self._sizes

    async def forget(self, sha256: str) -> None:
        """Remove all pictures of a video, also those that are being made."""
        for name, making in self._making.items():
            if name.startswith(sha256):
                making.is_wanted = False
        await self._remove([name for name in self._sizes if name.startswith(sha256)])

    async def _make(self, name: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            data = await make()
            if self._making[name].is_wanted:
                await self._write(name, data)
            return data
        finally:
            del self._making[name]

    async def _read(self, name: str) -> bytes | None:
        if name not in self._sizes:
            return None
        self._sizes.move_to_end(name)
        path = self._folder / name

        def read() -> bytes:
            os.utime(path)  # so that the next run knows, too
            return path.read_bytes()

        try:
            return await asyncio.to_thread(read)
        except OSError:
            self.total_bytes -= self._sizes.pop(name, 0)
            return None

    async def _write(self, name: str, data: bytes) -> None:
        def write() -> None:
            beside = self._folder / f".{secrets.token_hex(8)}"
            try:
                beside.write_bytes(data)
                beside.replace(self._folder / name)
            finally:
                beside.unlink(missing_ok=True)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            logger.warning("a picture could not be kept: %s", error.strerror)
            return
        self.total_bytes += len(data) - self._sizes.pop(name, 0)
        self._sizes[name] = len(data)
        await self._shrink()

    async def _shrink(self) -> None:
        gone, total = [], self.total_bytes
        for name, size in self._sizes.items():
            if total <= self._max_bytes:
                break
            total -= size
            gone.append(name)
        await self._remove(gone)

    async def _remove(self, names: list[str]) -> None:
        for name in names:
            self.total_bytes -= self._sizes.pop(name, 0)

        def unlink() -> None:
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

        try:
            await asyncio.to_thread(unlink)
        except OSError as error:
            logger.warning("pictures could not be removed: %s", error.strerror)
