"""What a store of videos does, whatever holds the bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1024 * 1024


class MediaSetupError(OSError):
    """The place cannot be used; the message is one line for the operator."""


class MediaMissingError(Exception):
    """The store has no such bytes."""


class MediaUnavailableError(Exception):
    """The store does not answer; trying again later can help."""


class MediaFullError(Exception):
    """The store has no room left."""


@dataclass(frozen=True)
class StoredFile:
    """One file of the store.

    Attributes:
        sha256: of its bytes, in hexadecimal; its only name.
        age_seconds: since it was written.
    """

    sha256: str
    age_seconds: float


class MediaStore(Protocol):
    """Bytes by their digest. A file is there whole or not at all, whatever is killed.

    All methods raise `MediaUnavailableError`.
    """

    async def start(self) -> None:
        """Make sure that it can be used.

        Raises:
            MediaSetupError: with one line that tells the operator what to change.
        """

    async def claim(self, owner: str) -> bool:
        """Belong to `owner` if to nobody yet; tell whether it belongs to them now."""

    async def put(self, path: Path, *, sha256: str) -> None:
        """Keep a copy of the file at `path`; it may be there already.

        Raises:
            MediaFullError: there is no room.
        """

    async def size(self, sha256: str) -> int | None:
        """Return how many bytes it has; None: it is not there."""

    def read(self, sha256: str, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield `length` bytes from `start` on, in chunks of about `CHUNK_BYTES`.

        Raises:
            MediaMissingError: it is not there.
        """

    def local(self, sha256: str) -> AbstractAsyncContextManager[Path]:
        """Lend a file with the bytes, to be read only.

        Raises:
            MediaMissingError: it is not there.
            MediaFullError: there is no room for it on this machine.
        """

    async def delete(self, sha256: str) -> None:
        """Remove it; nothing there is fine."""

    def files(self) -> AsyncIterator[list[StoredFile]]:
        """Yield everything, some at a time, in no order."""

    async def clean(self, *, age_seconds: float) -> None:
        """Remove what was left by writers that were killed so long ago."""
