"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio

import orjson
from fastapi import APIRouter, Request, Response

from service.errors import ApiError, problem
from service.index.video_index import IndexUnavailableError
from service.metrics import Metrics
from service.routes.parts import Parts, progress_of

router = APIRouter(tags=["operations"])

_PING_SECONDS = 2.0


@router.get("/healthz", summary="The event loop turns")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers; nothing else is looked at."""
    return {"status": "ok"}


@router.get("/readyz", summary="Requests can be served")
async def readyz(request: Request) -> Response:
    """200, or 503 with the components that are not ready.

    A component is ready while it gets on with its work, or would: idle workers are asked now and
    then. Redis that is down, a disk without room for uploads, and an encoder of several devices
    of which one does not work, are degraded, not unready; `devices` says which, by its place in
    VTAG_DEVICE.
    """
    progress = progress_of(request)
    components, devices = dict(progress.components), {}
    if progress.parts is not None:
        components |= await _probe(progress.parts)
        devices = dict(progress.parts.devices())
    for name, state in components.items():
        request.app.state.metrics.component_up.labels(name).set(state in ("ok", "degraded"))
    waiting = sorted(name for name, state in components.items() if state not in ("ok", "degraded"))
    if progress.parts is None or waiting:
        error = ApiError(
            "not_ready",
            f"Waiting for: {', '.join(waiting) or 'start-up'}.",
            extra={"components": components, "devices": devices},
            retry_after_seconds=2,
        )
        return problem(error, instance=request.url.path, request_id=str(request.state.request_id))
    body = orjson.dumps({"status": "ready", "components": components, "devices": devices})
    return Response(body, media_type="application/json")


@router.get("/startupz", summary="The start is over")
async def startupz(request: Request) -> dict[str, str]:
    """200 once everything has started, whatever became of it since; 503 until then."""
    progress = progress_of(request)
    if not progress.started:
        waiting = ", ".join(sorted(progress.waiting_for())) or "start-up"
        raise ApiError("not_ready", f"Still waiting for: {waiting}.", retry_after_seconds=2)
    return {"status": "started"}


async def _count_index(parts: Parts) -> None:
    """Bring the gauges of the index up to date; an index that is away keeps its last figures."""
    try:
        content = await asyncio.wait_for(parts.index.spaces(), _PING_SECONDS)
    except (IndexUnavailableError, TimeoutError):
        parts.metrics.component_up.labels("index").set(0)
        return
    here = [found for found in content if found.space.id == parts.tagger.space.id]
    parts.metrics.index_videos.set(sum(found.videos for found in here))
    parts.metrics.index_segments.set(sum(found.segments for found in here))


async def _probe(parts: Parts) -> dict[str, str]:
    states = dict(parts.states())
    try:
        await asyncio.wait_for(parts.index.ping(), _PING_SECONDS)
        states["index"] = "ok"
    except (IndexUnavailableError, TimeoutError):
        states["index"] = "down"
    states["spool"] = "ok" if parts.spool.has_room else "degraded"  # what needs no upload goes on
    if parts.admission.draining:
        states["intake"] = "draining"
    return states


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """The exposition format of Prometheus."""
    found: Metrics = request.app.state.metrics
    parts = progress_of(request).parts
    if parts is not None:
        await _count_index(parts)
    return Response(found.render(), media_type=found.content_type)
