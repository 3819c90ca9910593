"""Webhooks: tells a URL that a job has ended, again and again until it is taken or given up.

Standard Webhooks (standardwebhooks.com): a thin event, an id that all tries share, a signature
over id, time and body. At least once: a service that dies while it sends sends again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from service.errors import ApiError
from service.index.video_index import IndexUnavailableError
from service.jobs.job import Job
from service.jobs.webhook_records import Webhook, WebhookRecords
from service.metrics import Metrics
from service.schemas_jobs import WebhookOptions
from service.url_guard import (
    LentTransport,
    NoAddressError,
    UrlGuard,
    UrlRefusedError,
    is_tls,
    own_transport,
)
from service.webhook_secrets import signed_headers

logger = logging.getLogger("vtag.webhooks")

_LOOK_SECONDS: Final = 1.0
_SEND_SECONDS: Final = 15.0  # as the specification advises
_LEASE_SECONDS: Final = 60.0
_GROWTH: Final = 4.0
_MOST_SECONDS: Final = 24 * 3600.0
_SPREAD: Final = 0.2
_GONE: Final = 410  # the receiver wants no more


@dataclass(frozen=True)
class Outcome:
    """What came of one try; `error` None: it was taken."""

    status: int | None
    error: str | None


class Webhooks:
    """Delivers webhooks of jobs of all services that share the database.

    Args:
        records: where they are kept.
        guard: which URLs may be told.
        secrets: to sign with, the newest first.
        attempts: tries of one webhook.
        retry_seconds: wait before the second; each later wait is four times as long.
        at_once: webhooks that are sent at once.
        metrics: where they are counted.
    """

    def __init__(
        self,
        records: WebhookRecords,
        *,
        guard: UrlGuard,
        secrets: tuple[str, ...],
        attempts: int,
        retry_seconds: float,
        at_once: int,
        metrics: Metrics,
    ) -> None:
        self.records = records
        self._guard = guard
        self._secrets = secrets
        self._attempts = attempts
        self._retry_seconds = retry_seconds
        self._at_once = at_once
        self._metrics = metrics
        self._transport = own_transport()
        self._sending: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to deliver, if there is a secret."""
        if self._secrets:
            self._loop = asyncio.create_task(self._serve(), name="webhooks")

    async def stop(self) -> None:
        """Stop; what is being sent is sent again at the next start. Safe to call twice."""
        tasks = {*self._sending, *([] if self._loop is None else [self._loop])}
        self._loop = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._transport.aclose()

    def check(self, wanted: WebhookOptions) -> None:
        """Refuse a URL that would never be told; nothing is resolved or connected for it.

        Raises:
            ApiError: ``webhook_not_allowed``.
        """
        try:
            if not self._secrets:
                raise UrlRefusedError("This service sends no webhooks: it has no secret.")
            self._guard.parse(wanted.url)
        except UrlRefusedError as error:
            raise ApiError("webhook_not_allowed", error.detail, param="webhook.url") from None

    async def _serve(self) -> None:
        while True:
            try:
                while len(self._sending) < self._at_once:
                    found = await self.records.claim(lease_seconds=_LEASE_SECONDS)
                    if found is None:
                        break
                    task = asyncio.create_task(self._deliver(*found), name=found[0].webhook_id)
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
            except IndexUnavailableError:
                pass
            except Exception:
                logger.exception("looking for webhooks failed; trying again")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _deliver(self, webhook: Webhook, job: Job) -> None:
        try:
            outcome = await self._send(webhook, job)
        except Exception:
            logger.exception("sending a webhook failed")
            outcome = Outcome(None, "The service failed.")
        with contextlib.suppress(IndexUnavailableError):  # the lease ends, and it is tried again
            await self._note(webhook, outcome)

    async def _note(self, webhook: Webhook, outcome: Outcome) -> None:
        if outcome.error is None:
            self._metrics.webhooks.labels("delivered").inc()
            await self.records.delivered(webhook, status=outcome.status or 0)
            return
        again: float | None = None
        if outcome.status != _GONE and webhook.attempts < self._attempts:
            wait = min(_MOST_SECONDS, self._retry_seconds * _GROWTH ** (webhook.attempts - 1))
            again = wait * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - jitter
        self._metrics.webhooks.labels("dead" if again is None else "failed").inc()
        logger.warning(
            "a webhook was not taken",
            extra={"job": webhook.job_id, "attempt": webhook.attempts, "dead": again is None},
        )
        await self.records.failed(
            webhook, status=outcome.status, error=outcome.error, again_seconds=again
        )

    async def _send(self, webhook: Webhook, job: Job) -> Outcome:
        body = event(job)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "vtag-webhooks",
            **signed_headers(
                self._secrets, webhook_id=webhook.webhook_id, body=body.decode("utf-8")
            ),
        }
        client = httpx.AsyncClient(
            transport=LentTransport(self._transport), trust_env=False, timeout=_SEND_SECONDS
        )
        try:
            async with asyncio.timeout(_SEND_SECONDS), client:
                url = self._guard.parse(webhook.url)  # the settings may have changed since
                response = await self._guard.send(
                    client, url, method="POST", headers=headers, content=body
                )
                await response.aclose()  # what it says is of no use, and may have no end
        except UrlRefusedError as error:
            return Outcome(None, error.detail)
        except NoAddressError:
            return Outcome(None, "The host has no address.")
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(None, "The receiver took too long.")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            is_refused = "has no valid certificate" if is_tls(error) else "could not be reached"
            return Outcome(None, f"The receiver {is_refused}.")
        if response.is_success:
            return Outcome(response.status_code, None)
        return Outcome(response.status_code, f"The receiver answered {response.status_code}.")


def event(job: Job) -> bytes:
    """Return the body of a webhook: what happened, and where to read the rest."""
    ended = job.finished_at or job.created_at
    body: dict[str, Any] = {
        "type": f"job.{job.state}",
        "timestamp": ended.isoformat(),
        "data": {
            "id": job.id,
            "kind": job.kind,
            "status": job.state,
            "error": job.problem,
            "attempts": job.attempts,
            "created_at": job.created_at.isoformat(),
            "finished_at": ended.isoformat(),
            "url": f"/jobs/{job.id}",
        },
    }
    return orjson.dumps(body)
