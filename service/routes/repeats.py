"""``Idempotency-Key``: a request that is sent again gets the answer that was given, not more work.

A middleware takes the key before the body is read, so that of two requests at once the second is
refused. What tells requests apart is known after the body: whoever reads it calls `recognise`.
A stream of events is kept as any other answer, once its last event was sent and was no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError, problem
from service.idempotency import KeptAnswer, KeptAnswers, answer_key
from service.index.video_index import IndexUnavailableError
from service.routes.event_stream import wants_events

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_log = logging.getLogger("vtag.http")

_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')
_MOST_BYTES: Final = 1024 * 1024
_REPLAYED: Final = "Idempotent-Replayed"
_RENEWALS: Final = 3
"""Of a lease, before it would end."""


@dataclass
class Attempt:
    """One request that carries a key.

    Attributes:
        digest: takes in what the request asks for.
        kept: the answer that was given under this key; None: this is the first request.
        fingerprint: of the request; None until its body has been read.
        spoilt: whether the answer, whose status was sent as a good one, went wrong.
    """

    digest: Hash
    kept: KeptAnswer | None
    fingerprint: bytes | None = None
    spoilt: bool = False


class RepeatedError(Exception):
    """The request was answered before; this is the answer."""

    def __init__(self, answer: KeptAnswer) -> None:
        super().__init__("answered before")
        self.answer = answer


def digest_of(request: Request) -> Hash | None:
    """What a reader of the body feeds it to; None: the request carries no key."""
    attempt: Attempt | None = request.scope["state"].get("attempt")
    return None if attempt is None else attempt.digest


def recognise(request: Request) -> None:
    """Tell whether the request, whose body has been read, was answered before.

    Raises:
        RepeatedError: it was.
        ApiError: ``idempotency_key_reused``: another one was.
    """
    attempt: Attempt | None = request.scope["state"].get("attempt")
    if attempt is None:
        return
    attempt.fingerprint = attempt.digest.digest()
    if attempt.kept is None:
        return
    if not hmac.compare_digest(attempt.fingerprint, attempt.kept.fingerprint):
        raise ApiError(
            "idempotency_key_reused",
            "Under this Idempotency-Key another request was answered; choose a new key.",
            param="Idempotency-Key",
        )
    raise RepeatedError(attempt.kept)


def is_repeat(request: Request) -> bool:
    """Whether an answer is kept for this request: to give it again costs no work."""
    attempt: Attempt | None = request.scope["state"].get("attempt")
    return attempt is not None and attempt.kept is not None


def spoil(request: Request) -> None:
    """Say that the answer that is being sent has gone wrong, so it may be asked for again."""
    attempt: Attempt | None = request.scope["state"].get("attempt")
    if attempt is not None:
        attempt.spoilt = True


async def replay(_: Request, error: Exception) -> Response:
    """Answer a request that was answered before; the handler of `RepeatedError`."""
    if not isinstance(error, RepeatedError):
        raise error
    headers = {name: value for name, value in error.answer.headers if name != "content-length"}
    headers[_REPLAYED] = "true"
    return Response(error.answer.body, status_code=error.answer.status, headers=headers)


class Repeats:
    """ASGI middleware for ``POST`` requests with the header.

    Only answers of success are kept, up to a MiB: everything else may be tried again.

    Args:
        app: what is behind.
        answers: where answers are kept; None while the service starts.
    """

    def __init__(self, app: ASGIApp, *, answers: Callable[[], KeptAnswers | None]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answers = self._answers()
        sent: list[str] = []
        if scope["type"] == "http" and scope["method"] == "POST":
            sent = Headers(scope=scope).getlist("idempotency-key")
        if not sent or answers is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._first_or_again(_legible(sent), answers, scope, receive, send)
        except ApiError as error:
            request_id = scope["state"]["request_id"]
            answer = problem(error, instance=scope["path"], request_id=request_id)
            await answer(scope, receive, send)

    async def _first_or_again(
        self, sent: str, answers: KeptAnswers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        caller = scope["state"]["caller"].name
        key = answer_key(caller, scope["method"], scope["path"], sent)
        token = secrets.token_hex(16)
        try:
            found = await answers.begin(key, attempt=token)
        except IndexUnavailableError:
            raise ApiError(
                "index_unavailable",
                "What an Idempotency-Key promises cannot be kept now.",
                retry_after_seconds=5,
            ) from None
        if found == "busy":
            raise ApiError(
                "request_in_progress",
                "A request with this Idempotency-Key has not been answered yet.",
                param="Idempotency-Key",
                retry_after_seconds=1,
            )
        kept = found if isinstance(found, KeptAnswer) else None
        # The same body may be asked for as events or as JSON: two requests.
        form = b"events" if wants_events(Headers(scope=scope).get("accept", "")) else b""
        attempt = Attempt(hashlib.sha256(scope["query_string"] + b"\n" + form), kept)
        scope["state"]["attempt"] = attempt
        if kept is not None:
            await self._app(scope, receive, send)
            return
        recorder = _Recorder(send, attempt, answers, key=key, token=token)
        renewing = asyncio.create_task(_renew(answers, key, token), name="renew-key")
        try:
            await self._app(scope, receive, recorder.send)
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await recorder.close()


async def _renew(answers: KeptAnswers, key: bytes, token: str) -> None:
    """Keep a key taken: short leases, so that one whose process was killed is soon free."""
    while True:
        await asyncio.sleep(answers.lease_seconds / _RENEWALS)
        with contextlib.suppress(IndexUnavailableError):  # the next time, or somebody else has it
            await answers.renew(key, attempt=token)


def _legible(sent: list[str]) -> str:
    match = _KEY.fullmatch(sent[0]) if len(sent) == 1 else None
    if match is None:
        raise ApiError(
            "invalid_idempotency_key",
            "Send one key of 1 to 255 visible ASCII characters, best a UUID.",
            param="Idempotency-Key",
        )
    return match[1]


@dataclass
class _Recorder:
    """Keeps the answer before its end is sent: a client that has it may ask again at once."""

    onward: Send
    attempt: Attempt
    answers: KeptAnswers
    key: bytes
    token: str
    _start: Message | None = None
    _body: bytearray = field(default_factory=bytearray)
    _is_kept: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            is_worth_it = 200 <= message["status"] < 300
            self._start = message if is_worth_it and self.attempt.fingerprint else None
        elif self._start is not None:
            self._body += message.get("body", b"")
            if len(self._body) > _MOST_BYTES:
                self._start = None
            elif not message.get("more_body", False) and not self.attempt.spoilt:
                await self._keep(self._start)
        await self.onward(message)

    async def _keep(self, start: Message) -> None:
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]
        )
        answer = KeptAnswer(
            self.attempt.fingerprint or b"", start["status"], headers, bytes(self._body)
        )
        try:
            await self.answers.finish(self.key, attempt=self.token, answer=answer)
            self._is_kept = True
        except IndexUnavailableError:
            _log.warning("an answer could not be kept for its Idempotency-Key")

    async def close(self) -> None:
        """Free the key if there is nothing under it; a lease ends what cannot be freed."""
        if not self._is_kept:
            with contextlib.suppress(IndexUnavailableError):
                await self.answers.release(self.key, attempt=self.token)
