"""Videos in a bucket of S3, or of anything that speaks its protocol."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import S3Store

from service.media.store import (
    CHUNK_BYTES,
    MediaFullError,
    MediaMissingError,
    MediaSetupError,
    MediaUnavailableError,
    StoredFile,
)

_KEY: Final = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})")
_OWNER: Final = "owner"
_PART_BYTES: Final = 8 * CHUNK_BYTES
_PARTS_AT_ONCE: Final = 4  # of one upload: 32 MiB of memory
_PAGE: Final = 1000
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_bucket(url: str) -> S3Store:
    """Return the bucket and prefix that ``s3://bucket/prefix`` names; nothing is asked of it yet.

    Credentials, region and endpoint come from the variables that all of Amazon's tools read.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        client_options={
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=20),
            "timeout": timedelta(hours=1),  # of a whole object; a silence ends before
            "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


class BucketStore:
    """`MediaStore` below a prefix of a bucket; an object appears when its upload is complete.

    Parts of uploads that were cut off are invisible; a lifecycle rule of the bucket ends them.

    Args:
        url: ``s3://bucket/prefix``.
        scratch: folder of this machine for copies that are lent; emptied at the next start.
    """

    def __init__(self, url: str, *, scratch: Path) -> None:
        self._url = url
        self._scratch = scratch
        self._store = open_bucket(url)

    async def start(self) -> None:
        """Look into the bucket."""
        try:
            await self._store.list(chunk_size=1).__anext__()
        except StopAsyncIteration:
            pass
        except (BaseError, OSError) as error:
            # The library repeats addresses and what the server says; the kind is enough.
            raise MediaSetupError(
                f"VTAG_MEDIA_URL: {self._url} cannot be used ({type(error).__name__})"
            ) from error

    async def claim(self, owner: str) -> bool:
        """Write the owner's name, if there is none."""
        with _translated():
            with suppress(AlreadyExistsError):
                await self._store.put_async(_OWNER, owner.encode(), mode="create")
            found = await self._store.get_async(_OWNER)
            return bytes(await found.bytes_async()) == owner.encode()

    async def put(self, path: Path, *, sha256: str) -> None:
        """Upload the file at `path`."""
        with _translated():
            await self._store.put_async(
                _key(sha256), path, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

    async def size(self, sha256: str) -> int | None:
        """Return how many bytes it has."""
        try:
            with _translated():
                return int((await self._store.head_async(_key(sha256)))["size"])
        except MediaMissingError:
            return None

    async def read(self, sha256: str, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of it."""
        if length == 0:
            return
        with _translated():
            found = await self._store.get_async(
                _key(sha256), options={"range": (start, start + length)}
            )
            chunks = found.stream(min_chunk_size=CHUNK_BYTES)
        while True:
            with _translated():
                try:
                    chunk = bytes(await chunks.__anext__())
                except StopAsyncIteration:
                    return
            yield chunk

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        """Lend a copy on this machine."""
        size = await self.size(sha256)
        if size is None:
            raise MediaMissingError
        path = self._scratch / secrets.token_hex(16)
        try:
            try:
                with path.open("xb") as file:
                    async for chunk in self.read(sha256, start=0, length=size):
                        file.write(chunk)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise MediaFullError from None
                raise MediaUnavailableError from error
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def delete(self, sha256: str) -> None:
        """Remove it."""
        try:
            with _translated():
                await self._store.delete_async(_key(sha256))
        except MediaMissingError:
            pass

    async def files(self) -> AsyncIterator[list[StoredFile]]:
        """Yield everything, page by page."""
        pages = self._store.list(chunk_size=_PAGE)
        while True:
            with _translated():
                try:
                    page = await pages.__anext__()
                except StopAsyncIteration:
                    return
            now = datetime.now(UTC)
            yield [
                StoredFile(match[1], (now - item["last_modified"]).total_seconds())
                for item in page
                if (match := _KEY.fullmatch(item["path"])) is not None
            ]

    async def clean(self, *, age_seconds: float) -> None:
        """Nothing: what is incomplete is the bucket's to end."""


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise MediaMissingError from None
    except (BaseError, OSError) as error:
        raise MediaUnavailableError from error
