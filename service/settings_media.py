"""Settings of what is kept of videos: their bytes, and pictures that are made from them."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from service.settings_types import Bytes, Count, GiB, MiB

_S3: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?", re.ASCII)


class MediaSettings(BaseSettings):
    """Where videos are kept, and how much of them."""

    media_url: str | None = Field(
        default=None,
        description="where videos are kept: a folder, s3://bucket/prefix (credentials, region and"
        " endpoint come from the AWS_ variables) or none; unset: a folder below VTAG_DATA_DIR",
    )
    media_bytes: Bytes = Field(
        default=64 * GiB, description="all videos that are kept; a video beyond is refused"
    )
    picture_bytes: Bytes = Field(
        default=512 * MiB, description="disk for thumbnails and previews that were made"
    )
    max_downloads: Count = Field(default=64, description="kept videos that are sent at once")

    @field_validator("media_url", mode="after")
    @classmethod
    def _known_place(cls, value: str | None) -> str | None:
        if value is None or value in ("", "none"):
            return value
        if value.startswith("s3://"):
            if _S3.fullmatch(value) is None:
                raise ValueError("must be s3://bucket or s3://bucket/prefix")
        elif "://" in value:
            raise ValueError("must be a folder, s3://bucket/prefix or none")
        return value
