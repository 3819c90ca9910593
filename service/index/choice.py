"""Which index the settings ask for."""

from __future__ import annotations

from pathlib import Path

from service.index.embedded import EmbeddedPostgres
from service.index.milvus import Milvus
from service.index.postgres import PostgresIndex
from service.settings import Settings


def choose_index(settings: Settings, *, data_dir: Path) -> PostgresIndex:
    """Return the index, not yet started; an embedded server keeps its data below ``data_dir``."""
    dsn: str | EmbeddedPostgres = EmbeddedPostgres(
        data_dir / "postgres", buffer_bytes=settings.postgres_buffer_bytes
    )
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
    return PostgresIndex(
        dsn,
        exact_segments=settings.exact_search_segments,
        graph_memory_bytes=settings.graph_memory_bytes,
        milvus=_milvus(settings),
    )


def _milvus(settings: Settings) -> Milvus | None:
    if settings.vector_url is None:
        return None
    token = None if settings.vector_token is None else settings.vector_token.get_secret_value()
    url = settings.vector_url.get_secret_value()
    return Milvus(url, token=token, ca_file=settings.vector_ca_file)
