"""Which webhooks the settings allow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.hosts import host_rules
from service.index.database import Database
from service.jobs.webhook_records import WebhookRecords
from service.jobs.webhooks import Webhooks
from service.metrics import Metrics
from service.settings import Settings
from service.settings_types import hosts_with_ports
from service.url_guard import UrlGuard
from service.webhook_secrets import read_secrets


@asynccontextmanager
async def open_webhooks(
    settings: Settings, *, database: Database, metrics: Metrics
) -> AsyncIterator[Webhooks]:
    """Lend what delivers webhooks, started; without a secret it refuses all of them."""
    path = settings.webhook_secret_file
    webhooks = Webhooks(
        WebhookRecords(database),
        guard=UrlGuard(
            hosts=host_rules(settings.webhook_hosts),
            plain_http=False,
            internal=hosts_with_ports(settings.webhook_internal),
            verb="told",
        ),
        secrets=() if path is None else read_secrets(path),
        attempts=settings.webhook_attempts,
        retry_seconds=settings.webhook_retry_seconds,
        at_once=settings.max_webhooks,
        metrics=metrics,
    )
    try:
        await webhooks.start()
        yield webhooks
    finally:
        await webhooks.stop()
