"""Settings of webhooks: what the service tells others when a job has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from service.hosts import host_rules
from service.settings_types import Count, HostsWithPorts
from service.webhook_secrets import read_secrets


class WebhookSettings(BaseSettings):
    """Where webhooks may go, how they are signed, and how often they are tried."""

    webhook_secret_file: Path | None = Field(
        default=None,
        description="file of secrets that webhooks are signed with, whsec_ and base64, one a line"
        " (several while one is replaced); unset: no webhooks",
    )
    webhook_hosts: str = Field(
        default="",
        description="hosts webhooks may go to by https, comma-separated, *.example.org for those"
        " below it, * for every public one; unset: none",
    )
    webhook_internal: HostsWithPorts = Field(
        default="",
        description="host:port of receivers that webhooks may go to though they are not public,"
        " by http too, comma-separated",
    )
    webhook_attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        default=9, description="tries of one webhook; then it is dead"
    )
    webhook_retry_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=5.0, description="wait before the second try; each later one is four times as long"
    )
    max_webhooks: Count = Field(default=4, description="webhooks that are sent at once")

    @field_validator("webhook_secret_file", mode="after")
    @classmethod
    def _usable_secrets(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_secrets(value)
        return value

    @field_validator("webhook_hosts", mode="after")
    @classmethod
    def _webhook_host_names(cls, value: str) -> str:
        host_rules(value)
        return value
