"""What there is no place for ends here, before a route is looked for.

At many times its capacity nearly everything that a service does is refuse. Looking for the route,
its dependencies and their ends cost as much again as the rest of a refusal.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import Admission
from service.errors import ApiError, problem
from service.routes.answers import preferred_wait

TAKERS: Final = frozenset({"/classify", "/videos"})
"""Paths that a video is posted to. Their routes ask again: this is a shortcut, not the rule."""


class Turnstile:
    """ASGI middleware: refuses videos that the lane has no place for.

    Args:
        app: what is behind.
        admission: knows the lane.
        seconds: longest work on a request that does not say how long its client waits.
    """

    def __init__(self, app: ASGIApp, *, admission: Admission, seconds: float) -> None:
        self._app = app
        self._admission = admission
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        # One with an Idempotency-Key may have been answered before; its route knows.
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"] in TAKERS
            and "idempotency-key" not in Headers(scope=scope)
        ):
            seconds = min(preferred_wait(Request(scope)) or self._seconds, self._seconds)
            try:
                self._admission.check("video", seconds=seconds)
            except ApiError as error:
                scope["route"] = SimpleNamespace(path=scope["path"])  # what it is counted under
                request_id = scope["state"]["request_id"]
                answer = problem(error, instance=scope["path"], request_id=request_id)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
