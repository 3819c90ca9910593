"""Settings of tracing: where spans go."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings


class TracingSettings(BaseSettings):
    """Whether requests are traced; the rest are OpenTelemetry's own variables."""

    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("VTAG_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="http(s)://host:port of a collector that takes traces by OTLP over HTTP (extra"
        " tracing); unset: nothing is traced",
    )

    @field_validator("otlp_endpoint", mode="after")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must be http(s)://host:port")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "must be http(s)://host:port without credentials or a query;"
                " OTEL_EXPORTER_OTLP_HEADERS takes keys"
            )
        if any(find_spec(name) is None for name in ("opentelemetry.sdk", "opentelemetry.proto")):
            raise ValueError("needs the extra tracing: pip install 'vtag[tracing]'")
        return value
