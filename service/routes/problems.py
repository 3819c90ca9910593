"""Every error on its way out becomes a problem (RFC 9457), those of the framework too."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.activation import ActivationFailedError, ActivationRunningError
from service.deadline import DeadlineExceededError, stage_var
from service.decode.crew import NotRunningError
from service.encode.residents import NotResidentError, StaleWeightsError
from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.errors import PROBLEMS, ApiError, ClientGoneError, coded, exhausted, problem
from service.frames import ClipsTooLargeError
from service.index.change import MetadataLimitError
from service.index.collection import CollectionExistsError, CollectionMissingError
from service.index.video_index import IndexUnavailableError, VersionMismatchError
from service.labels import LabelError
from service.options import OptionError
from service.routes.client import too_late
from service.routes.repeats import RepeatedError, replay
from service.schemas import MAX_METADATA_KEYS
from service.videoclip.errors import VideoError
from service.videoclip.manifest import ArtefactError

router = APIRouter(tags=["about"])

_FRAMEWORK = {404: "not_found", 405: "method_not_allowed", 400: "malformed_request"}


def _http(error: HTTPException) -> ApiError:
    code = _FRAMEWORK.get(error.status_code, "internal_error")
    details = {
        "not_found": "There is nothing at this path.",
        "method_not_allowed": "This path does not take this method.",
        "malformed_request": "The request could not be understood.",
        "internal_error": "The service failed; the logs say why.",
    }
    return ApiError(code, details[code], headers=error.headers)


def _query(error: RequestValidationError) -> ApiError:
    found = [
        {
            "param": str(item["loc"][-1]),
            "code": item["type"],
            "detail": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    return ApiError(
        "invalid_request",
        f"{found[0]['param']}: {found[0]['detail']}",
        param=str(found[0]["param"]),
        errors=found,
    )


def _too_many_frames(error: ClipsTooLargeError) -> ApiError:
    return ApiError(
        "invalid_sampling",
        "The frames asked for do not fit the memory of one request.",
        param="sampling",
        limit=error.slot_bytes,
        actual=error.needed_bytes,
    )


def _encoder(error: EncoderError) -> ApiError:
    if isinstance(error, EncoderUnavailableError):
        return ApiError(
            "encoder_unavailable", "The encoder is not available now.", retry_after_seconds=5
        )
    return ApiError("internal_error", "The encoder failed; the logs say why.")


def _switched(_: EncoderError) -> ApiError:
    return ApiError("encoder_unavailable", "Lambda was changed meanwhile.", retry_after_seconds=1)


TABLE: dict[type[Exception], Callable[..., ApiError | None]] = {
    ApiError: lambda error: error,
    VideoError: lambda error: coded(error, fallback="invalid_video", param="video"),
    ClipsTooLargeError: _too_many_frames,
    EncoderError: _encoder,
    NotResidentError: _switched,
    StaleWeightsError: _switched,
    IndexUnavailableError: lambda _: ApiError(
        "index_unavailable", "The index cannot be reached now.", retry_after_seconds=5
    ),
    LabelError: lambda error: coded(error, fallback="invalid_labels", param="labels"),
    OptionError: lambda error: coded(error, fallback="invalid_request", param=None),
    NotRunningError: lambda _: ApiError(
        "draining", "What decodes is being stopped.", retry_after_seconds=5
    ),
    DeadlineExceededError: lambda _: ApiError(
        "deadline_exceeded", "The work took longer than its time limit.", retry_after_seconds=5
    ),
    VersionMismatchError: lambda _: ApiError(
        "precondition_failed", "The video is not in the version that If-Match names."
    ),
    CollectionMissingError: lambda _: ApiError(
        "collection_not_found", "There is no collection of this name.", param="collection"
    ),
    CollectionExistsError: lambda _: ApiError(
        "collection_exists", "There is a collection of this name already.", param="name"
    ),
    MetadataLimitError: lambda _: ApiError(
        "invalid_request",
        f"A video has at most {MAX_METADATA_KEYS} keys of metadata.",
        param="metadata",
        limit=MAX_METADATA_KEYS,
    ),
    ArtefactError: lambda _: ApiError(
        "internal_error", "The model store is damaged; see the logs."
    ),
    ActivationRunningError: lambda error: ApiError(
        "activation_running",
        f"{error.name} is being activated, or finishes the requests of the one before.",
        retry_after_seconds=5,
    ),
    ActivationFailedError: lambda error: ApiError(
        "activation_failed", f"The old artefact serves on. {error}", retry_after_seconds=60
    ),
    ClientGoneError: lambda _: ApiError("client_closed_request", "The client left."),
    OSError: exhausted,
    HTTPException: _http,
    RequestValidationError: _query,
}


def explain(error: Exception, request: Request | None = None) -> ApiError | None:
    """Return the answer that the table has for an error; None: nobody foresaw it.

    Args:
        error: what was raised.
        request: in which, if it was in one: it knows its limits.
    """
    if request is not None and isinstance(error, DeadlineExceededError):
        return too_late(request)
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    return None


def install(app: FastAPI) -> None:
    """Register a handler for every row of the table."""
    for kind in TABLE:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(RepeatedError, replay)


async def _answer(request: Request, error: Exception) -> Response:
    # A coroutine: a plain function would be called in a thread, one hop for each refusal.
    answer = explain(error, request)
    if answer is None:
        raise error  # nobody foresaw it: whoever is outermost logs it
    metrics = request.app.state.metrics
    if isinstance(error, ClientGoneError):
        metrics.cancelled.labels(stage_var.get().name).inc()
    elif 400 <= answer.status < 500:
        metrics.input_errors.labels(answer.code).inc()
        if answer.status == 413:
            metrics.rejected.labels("too_large").inc()
    return problem(answer, instance=request.url.path, request_id=str(request.state.request_id))


@router.get("/problems", summary="All codes of problems")
async def problems() -> dict[str, list[dict[str, object]]]:
    """List every code an answer can carry, with its HTTP status."""
    return {"data": [_entry(code) for code in PROBLEMS]}


@router.get("/problems/{slug}", summary="One code of problems")
async def problem_type(slug: str) -> dict[str, object]:
    """Describe the problem type that an answer's ``type`` points to."""
    code = slug.replace("-", "_")
    if code not in PROBLEMS:
        raise ApiError("not_found", "There is no such problem type.")
    return _entry(code)


def _entry(code: str) -> dict[str, object]:
    kind = PROBLEMS[code]
    return {
        "code": code,
        "type": f"/problems/{code.replace('_', '-')}",
        "title": kind.title,
        "status": kind.status,
        "retryable": kind.retryable,
    }
