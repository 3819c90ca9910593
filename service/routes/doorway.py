"""What every request passes before its route, from the outside: envelope, gate, turnstile,
repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI

from service.admission import Admission
from service.api_keys import KeyFile
from service.envelope import Envelope
from service.fetch import Fetcher
from service.hosts import host_rules
from service.idempotency import AnswersInMemory, AnswersInPostgres, KeptAnswers
from service.index.postgres import PostgresIndex
from service.index.video_index import VideoIndex
from service.metrics import Metrics
from service.quota import Quotas
from service.routes.gate import Gate
from service.routes.parts import Progress
from service.routes.repeats import Repeats
from service.routes.turnstile import Turnstile
from service.settings import Settings
from service.settings_types import hosts_with_ports

_LEASE_SECONDS = 30.0  # of a key: renewed while its request is worked on


@dataclass(frozen=True)
class Doorway:
    """What stands in front of an application, while it runs.

    Attributes:
        quotas: of the callers.
        keys: who they are; None: anybody.
    """

    quotas: Quotas
    keys: KeyFile | None

    def open(self) -> None:
        """Begin to look after the file of keys."""
        if self.keys is not None:
            self.keys.start()

    async def close(self) -> None:
        """End it, and leave Redis; safe to call twice."""
        if self.keys is not None:
            await self.keys.stop()
        await self.quotas.close()


def install(
    app: FastAPI,
    settings: Settings,
    *,
    metrics: Metrics,
    progress: Progress,
    admission: Admission,
) -> Doorway:
    """Put everything in front of ``app``; what is returned is to be opened and closed."""
    redis = settings.redis_url
    quotas = Quotas(redis_url=None if redis is None else redis.get_secret_value())
    file = settings.api_keys_file
    keys = None if file is None else KeyFile(file)

    def answers() -> KeptAnswers | None:
        return None if progress.parts is None else progress.parts.answers

    app.add_middleware(Repeats, answers=answers)  # the last that is added is the outermost
    app.add_middleware(Turnstile, admission=admission, seconds=settings.request_timeout_seconds)
    app.add_middleware(Gate, keys=keys, quotas=quotas, metrics=metrics)
    app.add_middleware(Envelope, metrics=metrics)
    return Doorway(quotas, keys)


def admission(settings: Settings, metrics: Metrics) -> Admission:
    """Return the lanes that requests wait in."""
    return Admission(
        {
            "video": settings.max_in_flight,
            "text": settings.max_text_in_flight,
            "upload": settings.max_uploads,
            "download": settings.max_downloads,
        },
        workers={
            "video": settings.decode_workers,
            "text": settings.device.count(",") + 1,
            "upload": settings.max_uploads,
            "download": settings.max_downloads,
        },
        metrics=metrics,
    )


def kept_answers(settings: Settings, index: VideoIndex) -> KeptAnswers:
    """Choose where answers are kept: beside the index, which every set-up has."""
    seconds = settings.idempotency_seconds
    if isinstance(index, PostgresIndex):
        return AnswersInPostgres(index.database, seconds=seconds, lease_seconds=_LEASE_SECONDS)
    return AnswersInMemory(seconds=seconds, lease_seconds=_LEASE_SECONDS)


def fetcher(settings: Settings) -> Fetcher:
    """Return what fetches videos from the hosts that the settings allow."""
    return Fetcher(
        hosts=host_rules(settings.url_hosts),
        plain_http=settings.url_plain_http,
        seconds=settings.url_timeout_seconds,
        internal=hosts_with_ports(settings.url_internal),
    )
