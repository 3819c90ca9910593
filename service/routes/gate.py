"""The door: no key, no answer, but for the paths that are listed here; then the caller's quota."""

from __future__ import annotations

import math
import random
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import caller_var
from service.api_keys import OPEN, Caller, KeyFile, presented
from service.errors import ApiError, problem
from service.metrics import Metrics
from service.quota import Quotas, Standing

PUBLIC: Final = frozenset({"/healthz", "/readyz", "/startupz"})
"""What orchestrators ask, without a key and without a quota; matched exactly."""

_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1


class Gate:
    """ASGI middleware: refuses before the body is read, whatever the route would say.

    Args:
        app: what is behind.
        keys: known keys; None: the service is open to whoever reaches it.
        quotas: counts requests.
        metrics: where refusals are counted.
    """

    def __init__(
        self, app: ASGIApp, *, keys: KeyFile | None, quotas: Quotas, metrics: Metrics
    ) -> None:
        self._app = app
        self._keys = keys
        self._quotas = quotas
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        caller = OPEN
        if self._keys is not None:
            key = presented(scope["headers"])
            known = None if key is None else self._keys.find(key)
            if known is None:
                await self._refuse(_unauthorised(), "auth", scope, receive, send)
                return
            caller = known
        scope["state"]["caller"] = caller
        shares = self._keys is not None and self._keys.are_several
        token = caller_var.set(caller.name if shares else None)
        try:
            await self._within_quota(caller, scope, receive, send)
        finally:
            caller_var.reset(token)

    async def _within_quota(
        self, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        quota = caller.quota
        if quota.requests_per_minute is not None:
            standing = await self._quotas.count(caller.name, limit=quota.requests_per_minute)
            send = _standing(send, standing)
            if not standing.allowed:
                await self._refuse(_too_many(standing), "quota", scope, receive, send)
                return
        with self._quotas.place(caller.name, limit=quota.concurrent) as is_free:
            if not is_free:
                error = _too_many_at_once(quota.concurrent)
                await self._refuse(error, "quota", scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _refuse(
        self, error: ApiError, reason: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._metrics.rejected.labels(reason).inc()
        answer = problem(error, instance=scope["path"], request_id=scope["state"]["request_id"])
        await answer(scope, receive, send)


def _standing(send: Send, standing: Standing) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in standing.headers().items():
                headers[name] = value
        await send(message)

    return dressed


def _unauthorised() -> ApiError:
    return ApiError(
        "unauthorized",
        "Send a valid key in Authorization: Bearer, or in X-API-Key.",
        headers={"WWW-Authenticate": 'Bearer realm="vtag"'},
    )


def _too_many(standing: Standing) -> ApiError:
    seconds = math.ceil(max(1.0, standing.retry_seconds) * random.uniform(1.0, 1.2))  # noqa: S311 - jitter
    return ApiError(
        "quota_exceeded",
        f"This key may send {standing.limit} requests a minute.",
        limit=standing.limit,
        retry_after_seconds=seconds,
    )


def _too_many_at_once(limit: int | None) -> ApiError:
    return ApiError(
        "too_many_at_once",
        f"This key may have {limit} requests at the same time.",
        limit=limit,
        retry_after_seconds=random.randint(1, 3),  # noqa: S311 - jitter
    )


def caller_of(request: Request) -> Caller:
    """Return who made a request that the gate let in."""
    caller: Caller = request.state.caller
    return caller


async def _require_admin(request: Request) -> None:  # a coroutine: no hop to a thread
    if not caller_of(request).admin:
        raise ApiError("forbidden", "This needs a key with admin = true.")


Admin = Annotated[None, Depends(_require_admin)]
ADMIN_ONLY: Final = Depends(_require_admin)
"""For ``dependencies=[ADMIN_ONLY]`` of routes that change what everybody is served."""
