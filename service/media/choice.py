"""Which store of videos the settings ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.index.database import Database
from service.media.folder import FolderStore
from service.media.library import MediaLibrary
from service.media.picture_cache import PictureCache
from service.media.store import MediaStore
from service.settings import Settings
from service.state_folder import StateFolder

_SPARE_SECONDS = 60.0


@asynccontextmanager
async def open_library(
    settings: Settings, *, folder: StateFolder, database: Database
) -> AsyncIterator[MediaLibrary | None]:
    """Lend the library that `media_url` names, started; None: videos are not kept.

    Args:
        settings: of the service.
        folder: of the service's state; copies that are lent go into its spool.
        database: of the index.
    """
    url = settings.media_url
    if url == "none":
        yield None
        return
    store: MediaStore
    if url is not None and url.startswith("s3://"):
        from service.media.s3 import BucketStore  # 12 MB that nobody else needs in memory

        store = BucketStore(url, scratch=folder.spool)
    else:
        root = folder.path / "media" if url is None else Path(url).expanduser().absolute()
        store = FolderStore(root, reserve_bytes=settings.spool_reserve_bytes, writer=folder.name)
    library = MediaLibrary(
        store,
        pictures=PictureCache(folder.path / "pictures", max_bytes=settings.picture_bytes),
        database=database,
        holder=folder.name,
        max_bytes=settings.media_bytes,
        hold_seconds=settings.upload_timeout_seconds
        + settings.request_timeout_seconds
        + _SPARE_SECONDS,
    )
    try:
        await library.start()
        yield library
    finally:
        await library.stop()
