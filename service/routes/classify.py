"""``POST /classify``: one video and labels in free text; scored tags come back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.asked import segments_of
from service.deadline import stage_var
from service.errors import members
from service.routes import event_stream, problems
from service.routes.answers import require_model, seconds_allowed
from service.routes.body import video_body
from service.routes.classifying import Classifying
from service.routes.client import attended
from service.routes.documents import EVENTS, video_request
from service.routes.event_stream import EventStream, wants_events
from service.routes.parts import Ready
from service.routes.repeats import spoil
from service.routes.shapes import ClassifyAnswer
from service.schemas import ClassifyRequest

router = APIRouter(tags=["classify"])

BODY = video_request(
    ClassifyRequest,
    fields={"labels": {"type": "array", "items": {"type": "string"}}},
    required=["labels"],
)


@router.post(
    "/classify",
    summary="Tag a video with free-text labels",
    openapi_extra=BODY,
    response_model=ClassifyAnswer,
    responses=EVENTS,
)
async def classify(request: Request, parts: Ready) -> ClassifyAnswer | Response:
    """Score every label for the video; ``scores`` says what the numbers mean.

    ``softmax``: shares that sum to 1 over the given labels. ``cosine``: the similarity itself.
    ``independent``: each label for itself, with ``none_score`` for *none of these*.

    ``segments`` adds tags over time. With ``Accept: text/event-stream`` they come as events while
    they are made: ``meta`` (the answer for the whole video), ``segment`` for each, ``done``; or
    ``error`` with a problem.

    The work ends at the least of ``timeout_s``, ``Prefer: wait=SECONDS`` (RFC 7240, from the
    arrival of the request) and VTAG_REQUEST_TIMEOUT_SECONDS, events too; the problem
    ``deadline_exceeded`` names which it was. Long videos need enough of each.
    """
    async with AsyncExitStack() as stack:
        options, video = await stack.enter_async_context(
            video_body(request, parts, ClassifyRequest)
        )
        require_model(options.model, parts)
        segments = segments_of(options, default_length=parts.settings.segment_seconds)
        seconds = seconds_allowed(request, options.timeout_s, parts)
        stack.enter_context(parts.admission.enter("video", seconds=seconds))
        work = Classifying(request, parts, options, video, segments, seconds=seconds)
        if wants_events(request.headers.get("accept", "")):
            return await _stream(work, stack)
        return await attended(request, work.answer(), seconds=seconds)


async def _stream(work: Classifying, stack: AsyncExitStack) -> EventStream:
    """Answer with events; the first is made before, so that its errors have their own status."""
    events = work.events()
    request, parts = work.request, work.parts
    stack.push_async_callback(events.aclose)
    first = await attended(request, anext(events), seconds=work.seconds)

    def problem(error: Exception) -> dict[str, Any]:
        explained = problems.explain(error, request) or event_stream.unexpected(error)
        if 400 <= explained.status < 500:
            parts.metrics.input_errors.labels(explained.code).inc()
        request.state.problem = explained.code  # the status, 200, was sent long ago
        spoil(request)
        where = {"instance": request.url.path, "request_id": str(request.state.request_id)}
        return {**members(explained), **where}

    def gone() -> None:
        parts.metrics.cancelled.labels(stage_var.get().name).inc()
        request.state.problem = "client_closed_request"

    return EventStream(
        first,
        events,
        held=stack.pop_all(),
        problem=problem,
        silence_seconds=parts.settings.event_silence_seconds,
        gone=gone,
    )
