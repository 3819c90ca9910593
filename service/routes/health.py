"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics

from service import tracing
from service.errors import ApiError, problem
from service.index.video_index import IndexUnavailableError
from service.metrics import Metrics
from service.routes.parts import Parts, progress_of

router = APIRouter(tags=["operations"])

_PING_SECONDS = 2.0
_SCRAPE_SECONDS = 0.75
"""How long a scrape waits for the index: one that is away must not cost the other figures."""

_WORKING = ("ok", "degraded")
_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest


@router.get("/healthz", summary="The event loop turns")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers; nothing else is looked at."""
    return {"status": "ok"}


@router.get("/readyz", summary="Requests can be served")
async def readyz(
    request: Request,
    wanted: Literal["everything", "tagging"] = Query(
        "everything",
        alias="for",
        description="tagging: without an index that is down, which /classify does not need",
    ),
) -> Response:
    """200, or 503 with the components that are not ready.

    A component is ready while it gets on with its work, or would: idle workers are asked now and
    then. Redis that is down, a disk without room for uploads, and an encoder of several devices
    of which one does not work, are degraded, not unready; `devices` says which, by its place in
    VTAG_DEVICE.
    """
    progress = progress_of(request)
    components, devices = await _look(request, seconds=_PING_SECONDS)
    waiting = _waiting(components)
    if wanted == "tagging" and progress.parts is not None:
        waiting = [name for name in waiting if name != "index"]
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


async def _look(request: Request, *, seconds: float) -> tuple[dict[str, str], Mapping[str, str]]:
    """Return how components and devices do, and bring their gauges up to date."""
    progress = progress_of(request)
    components, devices = dict(progress.components), {}
    if progress.parts is not None:
        components |= await _probe(progress.parts, seconds=seconds)
        devices = dict(progress.parts.devices())
    metrics: Metrics = request.app.state.metrics
    for name, state in components.items():
        metrics.component_up.labels(name).set(state in _WORKING)
        metrics.component_degraded.labels(name).set(state == "degraded")
    metrics.ready.set(progress.parts is not None and not _waiting(components))
    return components, devices


def _waiting(components: Mapping[str, str]) -> list[str]:
    return sorted(name for name, state in components.items() if state not in _WORKING)


async def _probe(parts: Parts, *, seconds: float) -> dict[str, str]:
    index, _ = await asyncio.gather(
        _answers(parts.index.ping(), seconds=seconds), parts.ping_cache()
    )
    states = {**parts.states(), "index": "ok" if index else "down"}
    states["spool"] = "ok" if parts.spool.has_room else "degraded"  # what needs no upload goes on
    if parts.admission.draining:
        states["intake"] = "draining"
    return states


async def _count(parts: Parts | None, *, seconds: float) -> None:
    """Bring the gauges of what is stored up to date; they keep their figures while it is away."""
    if parts is not None:
        await _answers(_count_stored(parts), seconds=seconds)


async def _count_stored(parts: Parts) -> None:
    metrics = parts.metrics
    content = await parts.index.spaces()
    here = [found for found in content if found.space.id == parts.tagger.space.id]
    metrics.index_videos.set(sum(found.videos for found in here))
    metrics.index_segments.set(sum(found.segments for found in here))
    if parts.media is not None:
        metrics.media_bytes.set(await parts.media.total_bytes())
        metrics.media_limit_bytes.set(parts.settings.media_bytes)


async def _answers(asked: Awaitable[object], *, seconds: float) -> bool:
    """Whether the index answers in time."""
    try:
        await asyncio.wait_for(asked, seconds)
    except (IndexUnavailableError, TimeoutError):
        return False
    return True


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """The exposition format of Prometheus."""
    found: Metrics = request.app.state.metrics
    looking = _look(request, seconds=_SCRAPE_SECONDS)
    await asyncio.gather(looking, _count(progress_of(request).parts, seconds=_SCRAPE_SECONDS))
    # Exemplars lead to traces; only OpenMetrics can say them.
    if tracing.is_on() and "application/openmetrics-text" in request.headers.get("accept", ""):
        return Response(_openmetrics(found.registry), media_type=openmetrics.CONTENT_TYPE_LATEST)
    return Response(found.render(), media_type=found.content_type)
