"""Everything an operator can set, read from the environment (prefix ``VTAG_``) and checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import SettingsConfigDict

from service.api_keys import read_keys
from service.hosts import host_rules, is_loopback
from service.settings_jobs import JobSettings
from service.settings_media import MediaSettings
from service.settings_secrets import file_variable, read_secret_files, secret_names
from service.settings_tracing import TracingSettings
from service.settings_types import Bytes, Count, Devices, HostsWithPorts, MiB, Natural, Seconds
from service.settings_vectors import VectorSettings
from service.settings_webhooks import WebhookSettings

PREFIX = "VTAG_"
_TEST_PREFIX = "VTAG_TEST_"  # where tests find their data; not a setting of the service


class SettingsError(Exception):
    """Settings that cannot be used; ``lines`` holds one readable line per mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(MediaSettings, JobSettings, TracingSettings, VectorSettings, WebhookSettings):
    """Settings of the service; see ``python -m service --help``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        validation_alias=AliasChoices("VTAG_HOST", "HOST"),
        description="address to listen on",
    )
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("VTAG_PORT", "PORT"),
        description="port to listen on; 0 picks a free one",
    )
    data_dir: Path = Field(default=Path(".vtag"), description="folder of all state")
    model_store: Path = Field(default=Path("model_store"), description="folder of the artefacts")
    store_watch_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        default=2.0, description="how often the model store is looked at; 0: never"
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="Postgres with pgvector; unset: an embedded one below VTAG_DATA_DIR",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis for text embeddings; unset: memory of the process only"
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="TOML file of API keys (python -m service key NAME makes one), read again when"
        " it changes; one that is broken then is refused, and the keys from before stay",
    )
    allow_open: bool = Field(
        default=False,
        validate_default=True,
        description="serve strangers: without keys, on an address that is not of this machine only",
    )
    url_hosts: str = Field(
        default="",
        description="hosts videos may be fetched from, comma-separated, *.example.org for those"
        " below it, * for every public one; unset: none",
    )
    url_plain_http: bool = Field(
        default=False, description="fetch from http:// (port 80) too, not only from https://"
    )
    url_internal: HostsWithPorts = Field(
        default="",
        description="host:port of servers that videos may be fetched from though they are not"
        " public, by http too, comma-separated",
    )
    url_timeout_seconds: Seconds = Field(default=60.0, description="longest fetching of a video")
    idempotency_seconds: Seconds = Field(
        default=24 * 3600.0, description="how long answers are kept for an Idempotency-Key"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe message that is logged"
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto is text on a terminal, else json"
    )
    runtime: Literal["onnx", "torchscript"] = Field(default="onnx", description="runs the networks")
    device: Devices = Field(
        default="cpu",
        description="where the networks run: cpu, cuda (the first) or cuda:N; several that are"
        " alike comma-separated (cuda:0,cuda:1), a process each; cpu,cpu shares out the cores",
    )
    precision: Literal["auto", "float32", "float16", "int8"] = Field(
        default="auto", description="what they compute with; auto: float32"
    )
    resident_lambdas: Count = Field(default=2, description="lambdas in memory, the served included")
    encoder_threads: Natural = Field(
        default=0,
        description="threads of each encoder process; 0: one per core, divided by the devices",
    )
    decode_workers: Count = Field(default_factory=_cpus, description="child processes that decode")
    decode_sandbox: Literal["auto", "require", "off"] = Field(
        default="auto",
        description="take network, processes and files from decode workers: where the host allows "
        "it; or refuse to start where it does not; or not at all",
    )
    frame_slots: Count = Field(
        default=8, description="videos whose frames are in shared memory at once"
    )
    max_frames: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=256, description="frames of one request (frames x views)"
    )
    max_pixels: Count = Field(default=4096 * 2304, description="pixels of one picture of a video")
    max_duration_seconds: Seconds = Field(default=2 * 3600.0, description="length of a video")
    max_segments: Count = Field(default=2000, description="segments of one video")
    max_segment_tags: Count = Field(
        default=100_000, description="tags of all segments in one JSON answer, not in a stream"
    )
    event_silence_seconds: Seconds = Field(
        default=15.0, description="longest silence in a stream of events; then a comment is sent"
    )
    max_upload_bytes: Bytes = Field(default=512 * MiB, description="size of one video file")
    max_json_bytes: Bytes = Field(default=32 * MiB, description="size of a JSON body")
    max_field_bytes: Bytes = Field(
        default=MiB, description="size of one form field that is not the video"
    )
    max_labels: Count = Field(default=1000, description="labels of one request")
    max_label_characters: Count = Field(default=400, description="characters of one label")
    max_templates: Count = Field(default=100, description="prompt templates of one request")
    max_sentences: Count = Field(default=50_000, description="labels x templates of one request")
    max_inputs: Count = Field(default=256, description="inputs of one /embeddings request")
    max_in_flight: Count = Field(
        default=32, description="requests with a video that wait or are worked on"
    )
    max_text_in_flight: Count = Field(
        default=256, description="the same for requests with text only"
    )
    max_uploads: Count = Field(default=64, description="uploads that are being received")
    spool_reserve_bytes: Natural = Field(default=256 * MiB, description="disk uploads leave free")
    header_timeout_seconds: Seconds = Field(
        default=10.0, description="longest wait for the header of a request"
    )
    upload_stall_seconds: Seconds = Field(default=20.0, description="longest silence of an upload")
    upload_timeout_seconds: Seconds = Field(default=600.0, description="longest upload")
    request_timeout_seconds: Seconds = Field(
        default=120.0, description="longest work on one request, all segments of a long video"
    )
    encoder_timeout_seconds: Seconds = Field(
        default=60.0, description="longest run of the network on one batch; then it is killed"
    )
    decode_timeout_seconds: Seconds = Field(
        default=60.0, description="longest decoding of one video"
    )
    shutdown_seconds: Seconds = Field(
        default=10.0, description="time for running requests at shutdown"
    )
    drain_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        default=5.0,
        description="time after SIGTERM in which requests are still taken, but /readyz says 503",
    )
    segment_seconds: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = Field(
        default=4.0, description="length of the segments videos are indexed in"
    )
    text_cache_entries: Count = Field(default=50_000, description="text vectors kept in memory")
    evaluation_root: Path | None = Field(
        default=None,
        description="folder of labelled sets that lambda may be evaluated on; unset: none",
    )
    max_evaluation_bytes: Bytes = Field(
        default=2048 * MiB, description="videos of one evaluation of lambda, packed or unpacked"
    )
    max_evaluation_videos: Count = Field(default=2000, description="videos of one evaluation")
    evaluation_cache_bytes: Bytes = Field(
        default=1024 * MiB, description="disk for decoded frames while lambda is evaluated"
    )

    @field_validator("database_url", mode="after")
    @classmethod
    def _postgres_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql:// or postgres://")
        return value

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if value and not value.get_secret_value().startswith(schemes):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("api_keys_file", mode="after")
    @classmethod
    def _usable_keys(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_keys(value)
        return value

    @field_validator("allow_open", mode="after")
    @classmethod
    def _not_open_by_mistake(cls, value: bool, info: ValidationInfo) -> bool:
        """Fields are checked in their order: host and api_keys_file are there if they are good."""
        host, missing = info.data.get("host"), info.data.get("api_keys_file", "bad") is None
        if host is not None and missing and not value and not is_loopback(host):
            raise ValueError(
                f"strangers could reach {host}: set VTAG_API_KEYS_FILE, or VTAG_ALLOW_OPEN=true"
                " if something in front of the service asks for keys"
            )
        return value

    @field_validator("url_hosts", mode="after")
    @classmethod
    def _host_names(cls, value: str) -> str:
        host_rules(value)
        return value

    @field_validator("data_dir", "model_store", "evaluation_root", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()


def variables(name: str) -> list[str]:
    """Names of the environment variables that set a field, strongest first."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [PREFIX + name.upper()]


def load() -> Settings:
    """Read the settings from the environment, with every mistake reported at once.

    An unknown ``VTAG_`` variable is a mistake too: a misspelt limit must not be ignored.

    Raises:
        SettingsError: with one line per mistake; values of secrets are not shown.
    """
    secrets = [(name, variables(name)[0]) for name in secret_names(Settings.model_fields)]
    known = {variable for name in Settings.model_fields for variable in variables(name)}
    known |= {file_variable(variable) for _, variable in secrets}
    from_files, lines = read_secret_files(secrets)
    lines += [
        f"{variable}: no such setting (python -m service --help lists them)"
        for variable in sorted(os.environ)
        if variable.startswith(PREFIX)
        and not variable.startswith(_TEST_PREFIX)
        and variable not in known
    ]
    try:
        settings = Settings(**from_files)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            field = _field_of(str(item["loc"][0]))
            choices = [*variables(field), file_variable(variables(field)[0])]
            used = next((v for v in choices if os.environ.get(v)), choices[0])
            secret = field.endswith(("_url", "_endpoint"))
            shown = "" if secret else f" (got {str(item['input'])[:80]!r})"
            lines.append(f"{used}: {item['msg'].removeprefix('Value error, ')}{shown}")
        raise SettingsError(lines) from None
    if lines:
        raise SettingsError(lines)
    return settings


def _field_of(location: str) -> str:
    """Pydantic names a field by the alias it was read from; return the field."""
    known = (n for n in Settings.model_fields if location == n or location in variables(n))
    return next(known, location)
