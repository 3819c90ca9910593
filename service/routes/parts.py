"""What routes work with: the parts that the application joined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.admission import Admission
from service.errors import ApiError
from service.index.video_index import VideoIndex
from service.intake import BodyLimits
from service.kept_clip_weight import KeptClipWeight
from service.metrics import Metrics
from service.settings import Settings
from service.spool import Spool
from service.store import ArtefactStore
from service.tagger import Tagger


@dataclass
class Parts:
    """Everything that lives as long as the application."""

    settings: Settings
    metrics: Metrics
    admission: Admission
    spool: Spool
    store: ArtefactStore
    index: VideoIndex
    tagger: Tagger
    kept: KeptClipWeight
    states: Callable[[], Mapping[str, str]]  # component -> "ok", "degraded" or "down", at this time
    choosing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change of lambda at a time


@dataclass
class Progress:
    """How far the start has come; ``parts`` is there once all of it works.

    Attributes:
        components: name -> "starting" or "ok".
        failure: why the start failed, one line for the operator.
        finished: set when it succeeded or failed.
    """

    components: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    parts: Parts | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def waiting_for(self) -> Mapping[str, str]:
        """Return the components that are not ready, with their states."""
        return {name: state for name, state in self.components.items() if state != "ok"}


def progress_of(request: Request) -> Progress:
    """Return the state of the start."""
    progress: Progress = request.app.state.progress
    return progress


def ready_parts(request: Request) -> Parts:
    """Return the parts.

    Raises:
        ApiError: ``not_ready`` while they are still being started.
    """
    progress = progress_of(request)
    if progress.parts is None:
        waiting = ", ".join(sorted(progress.waiting_for())) or "start-up"
        request.app.state.metrics.rejected.labels("not_ready").inc()
        raise ApiError("not_ready", f"Still waiting for: {waiting}.", retry_after_seconds=2)
    return progress.parts


Ready = Annotated[Parts, Depends(ready_parts)]


def body_limits(settings: Settings) -> BodyLimits:
    """Return the bounds of request bodies."""
    return BodyLimits(
        max_json_bytes=settings.max_json_bytes,
        max_video_bytes=settings.max_upload_bytes,
        max_field_bytes=settings.max_field_bytes,
        max_parts=settings.max_labels + settings.max_templates + 50,
        stall_seconds=settings.upload_stall_seconds,
        total_seconds=settings.upload_timeout_seconds,
    )
