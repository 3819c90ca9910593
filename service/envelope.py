"""What every answer wears: request id, stage times, a problem instead of a stack trace."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import tracing
from service.deadline import Stage, stage_var
from service.errors import PROBLEMS, ApiError, problem
from service.ids import new_id
from service.logs import facts_var, request_id_var
from service.metrics import Metrics

logger = logging.getLogger("vtag.http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_QUIET = {"/healthz", "/readyz", "/startupz", "/metrics"}


class Envelope:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._plain: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _QUIET:
            await self._serve(scope, receive, send)
            return
        with tracing.request(scope):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else new_id("req")
        stages: dict[str, float] = {}
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["stages"] = stages
        state["arrived"] = time.monotonic()
        token = request_id_var.set(request_id)
        facts: dict[str, str | float] = {}
        facts_token = facts_var.set(facts)
        stage_token = stage_var.set(Stage(seconds=stages))
        start = time.perf_counter()
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                total = {**stages, "total": time.perf_counter() - start}
                headers["Server-Timing"] = ", ".join(
                    f"{name};dur={seconds * 1000:.2f}" for name, seconds in total.items()
                )
            await send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception:  # the last resort: whatever was not foreseen must not reach the client
            logger.exception("unexpected error")
            state["problem"] = "internal_error"
            if status == 0:
                error = ApiError("internal_error", "The service failed; the logs say why.")
                answer = problem(error, instance=scope["path"], request_id=request_id)
                await answer(scope, receive, dressed)
        finally:
            self._account(scope, status, time.perf_counter() - start, stages, facts)
            stage_var.reset(stage_token)
            facts_var.reset(facts_token)
            request_id_var.reset(token)

    def _endpoint(self, scope: Scope) -> str:
        """Return the template of the path; ``unmatched``: it is none of ours.

        Only routes of FastAPI say what they are: not those of its documents, nor the door, which
        refuses before a route is looked for. Paths without a variable are their own templates.
        """
        route = scope.get("route")
        if route is not None:
            return str(route.path)
        if not self._plain:
            paths = (getattr(each, "path", "{}") for each in scope["app"].routes)
            self._plain = frozenset(path for path in paths if "{" not in path)
        return scope["path"] if scope["path"] in self._plain else "unmatched"

    def _account(
        self,
        scope: Scope,
        status: int,
        seconds: float,
        stages: dict[str, float],
        facts: dict[str, str | float],
    ) -> None:
        """Count and log one request under the template of its path, never the path itself."""
        endpoint = self._endpoint(scope)
        code = scope["state"].get("problem")
        if code is not None:
            # Also of a stream of events, whose status was 200 when it went wrong.
            status = PROBLEMS[code].status
            self._metrics.problems.labels(code).inc()
        outcome = f"{status // 100}xx" if status and status != 499 else "disconnected"
        self._metrics.requests.labels(endpoint, outcome).inc()
        tracing.answered(method=scope["method"], endpoint=endpoint, status=status, facts=facts)
        exemplar = tracing.exemplar()
        self._metrics.request_seconds.labels(endpoint).observe(seconds, exemplar)
        for name, value in stages.items():
            self._metrics.stage_seconds.labels(name).observe(value, exemplar)
        caller = scope["state"].get("caller")
        level = logging.DEBUG if endpoint in _QUIET else logging.INFO
        logger.log(
            level,
            "%s %s %s",
            scope["method"],
            endpoint,
            status or "disconnected",
            extra={
                "method": scope["method"],
                "endpoint": endpoint,
                "status": status,
                "milliseconds": round(seconds * 1000, 1),
                **({"stages_ms": _milliseconds(stages)} if stages else {}),
                **facts,
                **(exemplar or {}),
                **({} if code is None else {"problem": code}),
                **({} if caller is None else {"caller": caller.name}),
            },
        )


def _milliseconds(stages: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds * 1000, 2) for name, seconds in stages.items()}
