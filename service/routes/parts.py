"""What routes work with: the parts that the application joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request

from service.activation import Activation
from service.admission import Admission
from service.errors import ApiError
from service.fetch import Fetcher
from service.idempotency import KeptAnswers
from service.index.video_index import VideoIndex
from service.intake.body import BodyLimits
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.runner import Jobs
from service.jobs.webhooks import Webhooks
from service.kept_clip_weight import KeptClipWeight
from service.media.library import MediaLibrary
from service.metrics import Metrics
from service.serving import Loan, Serving
from service.settings import Settings
from service.spool import Spool
from service.store import ArtefactStore
from service.tagger import Tagger


@dataclass
class Parts:
    """Everything that lives as long as the application.

    Each request has a copy with a `Loan` of its own: what `tagger`, `evaluation` and `states` come
    from is chosen when the first of them is read, and is the same until the request has ended.
    """

    settings: Settings
    metrics: Metrics
    admission: Admission
    spool: Spool
    store: ArtefactStore
    index: VideoIndex
    serving: Serving | Loan
    kept: KeptClipWeight
    answers: KeptAnswers
    fetcher: Fetcher
    media: MediaLibrary | None = None
    jobs: Jobs | None = None
    webhooks: Webhooks | None = None
    activation: Activation | None = None
    choosing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change of weights at a time

    @property
    def tagger(self) -> Tagger:
        """The one path from video and labels to tags."""
        return self.serving.present.tagger

    @property
    def evaluation(self) -> EvaluationTools | None:
        """What an evaluation of lambda works with."""
        return self.serving.present.evaluation

    def states(self) -> Mapping[str, str]:
        """Component -> "ok", "degraded", "stuck" or "down", at this time."""
        return self.serving.present.states()

    async def ping_cache(self) -> None:
        """Have `states` know whether Redis, if there is one, answers now."""
        if self.serving.present.engine is not None:
            await self.serving.present.engine.cache.ping()

    def devices(self) -> Mapping[str, str]:
        """Place in VTAG_DEVICE -> "ok", "stuck" or "down", at this time."""
        return self.serving.present.devices()


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

    @property
    def started(self) -> bool:
        """Whether everything has been started."""
        return self.finished.is_set() and self.failure is None

    def waiting_for(self) -> Mapping[str, str]:
        """Return the components that are not ready, with their states."""
        return {name: state for name, state in self.components.items() if state != "ok"}

    async def start(self, starts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        """Start components side by side; the first failure is raised once all have settled."""

        async def one(name: str, start: Callable[[], Awaitable[None]]) -> None:
            self.components[name] = "starting"
            await start()
            self.components[name] = "ok"

        results = await asyncio.gather(
            *(one(name, start) for name, start in starts.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result


def progress_of(request: Request) -> Progress:
    """Return the state of the start."""
    progress: Progress = request.app.state.progress
    return progress


async def ready_parts(request: Request) -> AsyncIterator[Parts]:
    """Lend the parts until the request has been answered to its last byte.

    Raises:
        ApiError: ``not_ready`` while they are still being started.
    """
    progress = progress_of(request)
    if progress.parts is None:
        waiting = ", ".join(sorted(progress.waiting_for())) or "start-up"
        request.app.state.metrics.rejected.labels("not_ready").inc()
        raise ApiError("not_ready", f"Still waiting for: {waiting}.", retry_after_seconds=2)
    parts = progress.parts
    if isinstance(parts.serving, Loan):
        raise TypeError("the parts of the application are lent, not those of a request")
    with parts.serving.lend() as loan:
        yield replace(parts, serving=loan)


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
