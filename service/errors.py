"""Every error a client can meet: one table from code to HTTP status, and RFC 9457 bodies."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Json = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What one code means: HTTP status, title, and whether trying again later can help."""

    status: int
    title: str
    retryable: bool = False


PROBLEMS: Mapping[str, Kind] = {
    # the request as bytes
    "malformed_json": Kind(400, "Body is not valid JSON"),
    "malformed_multipart": Kind(400, "Body is not valid multipart/form-data"),
    "malformed_request": Kind(400, "Request is malformed"),
    "too_many_parts": Kind(400, "Too many parts in the form"),
    "invalid_cursor": Kind(400, "Cursor is not one of ours"),
    "invalid_idempotency_key": Kind(400, "Idempotency-Key cannot be used"),
    "unauthorized": Kind(401, "No valid key was sent"),
    "forbidden": Kind(403, "The key does not allow this"),
    "not_found": Kind(404, "Nothing is here"),
    "video_not_found": Kind(404, "No such video"),
    "collection_not_found": Kind(404, "No such collection"),
    "space_not_found": Kind(404, "No vectors in this embedding space"),
    "job_not_found": Kind(404, "No such job"),
    "model_not_found": Kind(404, "No such artefact"),
    "media_not_kept": Kind(404, "Bytes of this video are not kept"),
    "method_not_allowed": Kind(405, "Method is not allowed here"),
    "slow_body": Kind(408, "Body did not arrive in time"),
    "body_too_large": Kind(413, "Body is larger than the limit"),
    "field_too_large": Kind(413, "Field is larger than the limit"),
    "unsupported_media_type": Kind(415, "Content type is not supported"),
    "range_not_satisfiable": Kind(416, "Range lies outside the bytes of the video"),
    # the request as meaning
    "invalid_request": Kind(422, "Request has invalid values"),
    "missing_video": Kind(422, "No video was sent"),
    "invalid_base64": Kind(422, "Video is not valid base64"),
    "url_not_allowed": Kind(422, "Videos are not fetched from this URL"),
    "webhook_not_allowed": Kind(422, "Webhooks are not sent to this URL"),
    "fetch_failed": Kind(424, "URL did not give a video"),
    "fetch_unavailable": Kind(424, "URL could not be reached", retryable=True),
    "video_not_kept": Kind(422, "Videos are not kept after the request"),
    "invalid_labels": Kind(422, "Labels cannot be used"),
    "no_labels": Kind(422, "No labels were given"),
    "too_many_labels": Kind(422, "More labels than the limit"),
    "too_many_sentences": Kind(422, "Labels times templates are more than the limit"),
    "duplicate_label": Kind(422, "A label was given twice"),
    "empty_label": Kind(422, "A label is empty"),
    "label_too_long": Kind(422, "A label is longer than the limit"),
    "invalid_label": Kind(422, "A label cannot be used"),
    "invalid_template": Kind(422, "A prompt template cannot be used"),
    "unknown_template_set": Kind(422, "No such template set"),
    "model_not_served": Kind(422, "This model is not being served"),
    "lambda_not_resident": Kind(422, "This lambda is not being served"),
    "invalid_embedding": Kind(422, "Embedding cannot be used"),
    "invalid_sampling": Kind(422, "Sampling options cannot be used"),
    "invalid_segments": Kind(422, "Segment options cannot be used"),
    "too_many_segments": Kind(422, "More segments than the limit"),
    # a labelled set
    "unsupported_archive": Kind(415, "Archive is of no supported kind"),
    "invalid_archive": Kind(422, "Archive cannot be used"),
    "archive_too_large": Kind(413, "Archive holds more than the limit"),
    "invalid_labelled_set": Kind(422, "Labelled set cannot be used"),
    "too_many_videos": Kind(422, "More videos than the limit"),
    "no_decodable_video": Kind(422, "No video of the set can be decoded"),
    "folder_not_allowed": Kind(422, "Folder is not one of those for evaluation"),
    # the video
    "unsupported_container": Kind(415, "Not a supported video container"),
    "unsupported_codec": Kind(415, "Video codec is not supported"),
    "no_video_stream": Kind(422, "File has no video stream"),
    "no_frames": Kind(422, "No frame could be decoded"),
    "picture_too_large": Kind(422, "Picture is larger than the limit"),
    "video_too_long": Kind(422, "Video is longer than the limit"),
    "time_range": Kind(422, "Time range is not inside the video"),
    "decode_failed": Kind(422, "Video could not be decoded"),
    "decode_timeout": Kind(422, "Video took too long to decode"),
    "invalid_video": Kind(422, "Video cannot be used"),
    # state
    "index_lambda_mismatch": Kind(409, "The index holds vectors of another embedding space"),
    "collection_exists": Kind(409, "Collection is there already"),
    "collection_required": Kind(409, "Collection cannot be removed"),
    "space_incomplete": Kind(409, "Videos of the collection lack this embedding space"),
    "space_in_use": Kind(409, "Embedding space is the one that is searched"),
    "reindex_running": Kind(
        409, "Collection is being re-embedded in another space", retryable=True
    ),
    "reindex_incomplete": Kind(409, "Videos could not be embedded again"),
    "job_ended": Kind(409, "Job has ended already"),
    "activation_running": Kind(409, "Another artefact is being activated", retryable=True),
    "artefact_refused": Kind(409, "Artefact is broken and is not served"),
    "model_changed": Kind(409, "Another model is served than when the job was sent"),
    "precondition_failed": Kind(412, "Resource has changed since it was read"),
    "request_in_progress": Kind(409, "This Idempotency-Key is being worked on", retryable=True),
    "idempotency_key_reused": Kind(422, "Idempotency-Key was used for another request"),
    # the caller's share
    "quota_exceeded": Kind(429, "More requests than the key may send", retryable=True),
    "too_many_at_once": Kind(429, "More requests at once than the key may send", retryable=True),
    # the service
    "client_closed_request": Kind(499, "Client left before the answer"),
    "internal_error": Kind(500, "The service failed"),
    "saturated": Kind(503, "The service is saturated", retryable=True),
    "draining": Kind(503, "The service is stopping", retryable=True),
    "not_ready": Kind(503, "The service is not ready", retryable=True),
    "index_unavailable": Kind(503, "The index is not reachable", retryable=True),
    "encoder_unavailable": Kind(503, "The encoder is not available", retryable=True),
    "activation_failed": Kind(503, "Artefact could not be started", retryable=True),
    "activation_unavailable": Kind(503, "This service serves one artefact only"),
    "jobs_unavailable": Kind(503, "This service runs no jobs"),
    "job_interrupted": Kind(503, "Job was interrupted too often", retryable=True),
    "deadline_exceeded": Kind(504, "Request took longer than its time limit", retryable=True),
    "media_unavailable": Kind(503, "The store of videos is not reachable", retryable=True),
    "spool_full": Kind(507, "No room for uploads", retryable=True),
    "media_full": Kind(507, "No room to keep another video"),
}


def problem_table() -> str:
    """Return all codes as a table in Markdown, by status; ``deploy/errors.md`` is this text."""
    lines = [
        "# Codes of problems",
        "",
        "Every error is `application/problem+json` (RFC 9457) with one of these in `code`; its",
        "`type` is `/problems/` and the code with hyphens. Where *again* says yes, the same",
        "request may succeed later: wait for `Retry-After` seconds.",
        "",
        "Written by `python -m service errors`.",
        "",
        "| status | code | meaning | again |",
        "| --- | --- | --- | --- |",
    ]
    for code, kind in sorted(PROBLEMS.items(), key=lambda item: (item[1].status, item[0])):
        again = "yes" if kind.retryable else "no"
        lines.append(f"| {kind.status} | `{code}` | {kind.title} | {again} |")
    return "\n".join(lines)


class ApiError(Exception):
    """An answer that is not a success; ``detail`` is shown to the client as it stands."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        limit: float | str | Sequence[str] | None = None,
        actual: object = None,
        errors: Sequence[Json] | None = None,
        extra: Mapping[str, object] | None = None,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.status = PROBLEMS[code].status
        self.code = code
        self.detail = detail
        self.param = param
        self.limit = limit
        self.actual = actual
        self.errors = errors
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def exhausted(error: OSError) -> ApiError | None:
    """Return the answer if the machine has no descriptor or no memory left, which passes."""
    if error.errno not in _EXHAUSTED:
        return None
    return ApiError(
        "saturated", "The service has no resources for this request now.", retry_after_seconds=5
    )


class ClientGoneError(Exception):
    """The client closed the connection; nobody reads an answer."""


def _plain(value: object) -> object:
    """Return a value JSON can hold; unknown kinds of values are dropped, never printed."""
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:50]]
    return None


def members(error: ApiError) -> Json:
    """Return what a problem says wherever it is shown: in an answer, or in a job that failed."""
    kind = PROBLEMS[error.code]
    body: Json = {
        "type": f"/problems/{error.code.replace('_', '-')}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "code": error.code,
        "retryable": kind.retryable,
    }
    for name in ("param", "limit", "actual"):
        value = _plain(getattr(error, name))
        if value is not None:
            body[name] = value
    body |= error.extra
    if error.errors:
        body["errors"] = list(error.errors)
    return body


class Problem(Response):
    """The ``application/problem+json`` answer of an error; whoever counts requests sees its code.

    Args:
        error: what went wrong.
        instance: path of the request.
        request_id: of the request.
    """

    def __init__(self, error: ApiError, *, instance: str, request_id: str) -> None:
        body = {**members(error), "instance": instance, "request_id": request_id}
        super().__init__(
            orjson.dumps(body),
            status_code=error.status,
            headers=error.headers,
            media_type="application/problem+json",
        )
        self._code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        scope.setdefault("state", {})["problem"] = self._code
        await super().__call__(scope, receive, send)


def problem(error: ApiError, *, instance: str, request_id: str) -> Response:
    """Build the ``application/problem+json`` answer of an error (RFC 9457)."""
    return Problem(error, instance=instance, request_id=request_id)


def coded(error: Exception, *, fallback: str, param: str | None) -> ApiError:
    """Turn a domain error that carries ``code`` and a client-safe ``detail`` into an answer."""
    code = str(getattr(error, "code", fallback))
    return ApiError(
        code if code in PROBLEMS else fallback,
        str(getattr(error, "detail", error)),
        param=getattr(error, "param", None) or param,
        limit=getattr(error, "limit", None),
        actual=getattr(error, "actual", None),
    )


_LIMIT_NAMES = ("max_length", "min_length", "le", "ge", "lt", "gt")


def invalid(error: ValidationError, *, prefix: str = "") -> ApiError:
    """List everything pydantic found wrong; values sent by the client are not repeated."""
    found = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or prefix
        detail = item["msg"].removeprefix("Value error, ")
        entry: Json = {"param": where, "code": item["type"], "detail": detail}
        context = item.get("ctx", {})
        for name in _LIMIT_NAMES:
            if isinstance(context.get(name), int | float):
                entry["limit"] = context[name]
        if isinstance(context.get("actual_length"), int):
            entry["actual"] = context["actual_length"]
        found.append(entry)
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ApiError(
        "invalid_request",
        f"{first['param'] or 'body'}: {first['detail']}{more}",
        param=first["param"] or None,
        limit=first.get("limit"),
        actual=first.get("actual"),
        errors=found[:50],
    )
