"""Settings of where vectors are, and how they are searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from service.settings_types import Bytes, MiB


class VectorSettings(BaseSettings):
    """Postgres and its graphs; or which Milvus has the vectors, and how it knows us."""

    vector_url: SecretStr | None = Field(
        default=None,
        description="Milvus for the vectors: https://host:19530/database, or a file of milvus-lite"
        " (PATH.db, one process); needs the extra milvus; unset: they are in Postgres",
    )
    vector_token: SecretStr | None = Field(
        default=None, description="key of that Milvus, or user:password"
    )
    vector_ca_file: Path | None = Field(
        default=None,
        description="PEM file of who signed the certificate of that Milvus; unset: known ones",
    )

    graph_memory_bytes: Bytes = Field(default=1024 * MiB, description="to build a graph for search")
    postgres_buffer_bytes: Bytes | None = Field(
        default=None,
        description="cache of the embedded Postgres; unset: a quarter of what is free, to 4 GiB",
    )
    exact_search_segments: Annotated[int, Field(ge=0)] = Field(
        default=10_000, description="up to this many segments search compares all of them"
    )

    @field_validator("vector_url", mode="after")
    @classmethod
    def _milvus(cls, value: SecretStr | None) -> SecretStr | None:
        url = "" if value is None else value.get_secret_value()
        if not url or url.startswith(("http://", "https://")):
            return value
        if ("://" in url and not url.startswith("file:///")) or not url.endswith(".db"):
            raise ValueError("must start with http:// or https://, or be a file that ends in .db")
        return value

    @field_validator("vector_ca_file", mode="after")
    @classmethod
    def _readable_certificate(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("is no file")
        return value
