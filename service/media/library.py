"""The videos that are kept: bytes in a store, what is known about them in Postgres.

Between the two there may be a crash at any time. The row comes before the bytes and goes after
them, so that whatever lies in the store without a video is found again and removed; and whoever is
about to add a video holds its bytes, so that nobody removes them under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from service.errors import ApiError
from service.index.database import Database
from service.index.video_index import IndexUnavailableError
from service.media.content_type import content_type
from service.media.picture_cache import PictureCache
from service.media.records import BATCH, Kept, MediaRecords
from service.media.store import (
    MediaFullError,
    MediaMissingError,
    MediaSetupError,
    MediaStore,
    MediaUnavailableError,
)

logger = logging.getLogger("vtag.media")

_SWEEP_SECONDS: Final = 300.0
_LIST_EVERY: Final = 48  # sweeps: listing a whole bucket has its price
LEFTOVER_SECONDS: Final = 3600.0
"""Files that nobody knows are left alone for so long: they may be on their way."""


class MediaLibrary:
    """Keeps the bytes of videos of the index for as long as there is such a video.

    Args:
        store: where the bytes go.
        pictures: made from them; gone with them.
        database: of the index; started before `start`.
        holder: name of this service; what it holds at its start is of a run that was killed.
        max_bytes: of all bytes together.
        hold_seconds: longest request; what it holds is free after that even if this service was
            killed and never starts again.
    """

    def __init__(
        self,
        store: MediaStore,
        *,
        pictures: PictureCache,
        database: Database,
        holder: str,
        max_bytes: int,
        hold_seconds: float,
    ) -> None:
        self.pictures = pictures
        self._store = store
        self._records = MediaRecords(database)
        self._holder = holder
        self._max_bytes = max_bytes
        self._hold_seconds = hold_seconds
        self._owns_store = False
        self._wake = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at the store, let go of what a killed run held, and begin to sweep.

        Raises:
            MediaSetupError: the store cannot be used.
        """
        owner = await self._records.owner()
        await self._store.start()
        try:
            await self.pictures.start()
        except OSError as error:
            raise MediaSetupError(f"VTAG_DATA_DIR: no pictures: {error.strerror}") from None
        with contextlib.suppress(MediaUnavailableError):
            self._owns_store = await self._store.claim(owner)
        if not self._owns_store:
            logger.warning("the media store belongs to another database: nothing is swept there")
        await self._records.release_all(self._holder)
        self._sweeping = asyncio.create_task(self._sweep_on(), name="media-sweep")

    async def stop(self) -> None:
        """Stop sweeping; safe to call twice."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
            self._sweeping = None

    @asynccontextmanager
    async def keeping(self, path: Path, *, sha256: str, size_bytes: int) -> AsyncIterator[None]:
        """Keep the bytes at `path` and hold them while a video with them is added.

        Without a video at the end nothing is kept.

        Raises:
            ApiError: ``media_full`` or ``media_unavailable``.
        """
        kind = await asyncio.to_thread(content_type, path)
        kept, token = Kept(sha256, size_bytes, kind), f"{self._holder}-{secrets.token_hex(16)}"
        if not await self._records.hold(
            kept, token=token, seconds=self._hold_seconds, max_bytes=self._max_bytes
        ):
            raise _full(limit=self._max_bytes)
        try:
            with _translated():
                if await self._store.size(sha256) != size_bytes:
                    await self._store.put(path, sha256=sha256)
            await self._records.mark_kept(sha256)
            yield
        finally:
            # Also when the request was cancelled: nobody else ends the hold before its time.
            await asyncio.shield(self._release(sha256, token))

    async def _release(self, sha256: str, token: str) -> None:
        with contextlib.suppress(IndexUnavailableError):  # then it ends by itself
            await self._records.release(sha256, token=token)
            await self.forget(sha256)

    async def forget(self, sha256: str) -> None:
        """Remove the bytes of a video that was deleted, unless another has or gets them.

        What cannot be removed now is removed by a later sweep.
        """
        try:
            await self._records.remove_unused(sha256, delete=self._delete)
        except (MediaUnavailableError, IndexUnavailableError):
            logger.warning("the bytes of a deleted video are removed later")

    def sweep_soon(self) -> None:
        """Look for bytes without a video now: many were deleted at once."""
        self._wake.set()

    async def find(self, sha256: str) -> Kept | None:
        """Return what is known about the bytes; None: they are not kept."""
        return await self._records.find(sha256)

    async def kept_videos(self, video_ids: Sequence[str]) -> set[str]:
        """Return those of `video_ids` whose bytes are kept."""
        return await self._records.kept_videos(video_ids)

    async def total_bytes(self) -> int:
        """Return how many bytes are kept."""
        return await self._records.total_bytes()

    async def read(self, kept: Kept, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of the bytes.

        Raises:
            ApiError: ``media_not_kept`` or ``media_unavailable``.
        """
        with _translated():
            async for chunk in self._store.read(kept.sha256, start=start, length=length):
                yield chunk

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        """Lend a file with the bytes, to be read only.

        Raises:
            ApiError: ``media_not_kept``, ``media_full`` or ``media_unavailable``.
        """
        async with contextlib.AsyncExitStack() as stack:
            with _translated():
                path = await stack.enter_async_context(self._store.local(sha256))
            yield path

    async def sweep(self, *, listing: bool) -> None:
        """Remove what no video needs: of deletions, requests and writers that were cut off.

        Args:
            listing: look through the whole store for files that nobody knows.

        Raises:
            MediaUnavailableError, IndexUnavailableError: one of the two is away.
        """
        more = True
        while more:
            unused = await self._records.unused()
            for sha256 in unused:
                await self._records.remove_unused(sha256, delete=self._delete)
            more = len(unused) == BATCH
        await self._store.clean(age_seconds=LEFTOVER_SECONDS)
        if not listing or not self._owns_store:
            return
        async for found in self._store.files():
            old = [file.sha256 for file in found if file.age_seconds >= LEFTOVER_SECONDS]
            for sha256 in await self._records.unknown(old):
                logger.info("removing bytes that no video has")
                await self._records.remove_unknown(sha256, delete=self._store.delete)

    async def _delete(self, sha256: str) -> None:
        await self.pictures.forget(sha256)
        await self._store.delete(sha256)

    async def _sweep_on(self) -> None:
        number = 0
        while True:
            try:
                await self.sweep(listing=number % _LIST_EVERY == 0)
                number += 1
            except (MediaUnavailableError, IndexUnavailableError):
                pass  # the next time
            except Exception:
                logger.exception("looking for bytes that no video has failed; trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._wake.wait()
            self._wake.clear()


def _full(*, limit: int | None = None) -> ApiError:
    return ApiError(
        "media_full",
        "There is no room to keep this video; delete others, or ask the operator.",
        param="video",
        limit=limit,
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except MediaMissingError:
        raise ApiError("media_not_kept", "The bytes of this video are not kept.") from None
    except MediaFullError:
        raise _full() from None
    except MediaUnavailableError as error:
        logger.warning("the media store does not answer", exc_info=error)
        raise ApiError(
            "media_unavailable", "The store of videos cannot be reached.", retry_after_seconds=5
        ) from None
