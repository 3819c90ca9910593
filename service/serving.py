"""What answers requests: lent to each for as long as it takes, replaced between two of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from service.engine import Engine
from service.errors import ApiError
from service.jobs.evaluation_tools import EvaluationTools
from service.metrics import Metrics
from service.tagger import Tagger

logger = logging.getLogger("vtag")

_END_SECONDS: Final = 10.0


@dataclass(eq=False)
class Served:
    """One engine while it serves.

    Attributes:
        tagger: what it can do.
        engine: what does it; None: somebody else starts and stops that.
        evaluation: what an evaluation of λ works with; None: this one evaluates nothing.
        users: how many hold it now.
        ending: set when those who hold it for long must let go.
    """

    tagger: Tagger
    engine: Engine | None = None
    evaluation: EvaluationTools | None = None
    users: int = field(default=0, init=False)
    ending: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    idle: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def name(self) -> str:
        """The artefact, as `name@revision`."""
        manifest = self.tagger.manifest
        return f"{manifest.name}@{manifest.revision}"

    def states(self) -> Mapping[str, str]:
        """Component -> "ok", "degraded", "stuck" or "down", at this time."""
        return {} if self.engine is None else self.engine.states()

    def devices(self) -> Mapping[str, str]:
        """Place in VTAG_DEVICE -> "ok", "stuck" or "down", at this time."""
        return {} if self.engine is None else self.engine.devices()

    async def stop(self) -> None:
        """End its processes; safe to call twice."""
        if self.engine is not None:
            await self.engine.stop()


class Loan:
    """What one request works with: chosen when it is first needed, the same from then on.

    So an upload that takes minutes does not keep an engine that was replaced meanwhile, and a
    request that has begun to work never sees two.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._served: Served | None = None

    @property
    def present(self) -> Served:
        """The engine of this request."""
        if self._served is None:
            self._served = self._serving.present
            self._served.users += 1
            self._served.idle.clear()
        return self._served

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._served is not None:
            self._served.users -= 1
            if self._served.users == 0:
                self._served.idle.set()


class Serving:
    """The engine that serves now, and those that were replaced and finish what they began.

    Args:
        first: need not run yet.
        end_seconds: time for an evaluation that was told to end.
    """

    def __init__(self, first: Served, *, end_seconds: float = _END_SECONDS) -> None:
        self._present = first
        self._end_seconds = end_seconds
        self._retired: set[Served] = set()

    @property
    def present(self) -> Served:
        """What serves requests made now."""
        return self._present

    @property
    def engine(self) -> Engine:
        """The parts of the artefact that serves now.

        Raises:
            LookupError: only a tagger was given.
        """
        if self._present.engine is None:
            raise LookupError("what serves has no engine of ours")
        return self._present.engine

    @property
    def resident(self) -> int:
        """How many engines are in memory: the present one and those that were replaced."""
        return 1 + len(self._retired)

    def lend(self) -> Loan:
        """Return a loan for one request, to be entered."""
        return Loan(self)

    @asynccontextmanager
    async def evaluating(self) -> AsyncIterator[EvaluationTools]:
        """Lend what an evaluation of λ works with; it may take hours, and is ended in time.

        Raises:
            ApiError: ``model_changed``: another artefact was activated and the time was up.
        """
        with self.lend() as loan:
            served = loan.present
            if served.evaluation is None:
                raise ApiError("jobs_unavailable", "This service evaluates nothing.")
            limit = asyncio.timeout(None)
            watch = asyncio.create_task(served.ending.wait())
            watch.add_done_callback(lambda ended: _expire(ended, limit))
            try:
                async with limit:
                    yield served.evaluation
            except TimeoutError:
                if not limit.expired():
                    raise
                raise ApiError(
                    "model_changed",
                    f"The job was sent for {served.name}, {self._present.name} is served now;"
                    " send it again.",
                    limit=self._present.name,
                    actual=served.name,
                ) from None
            finally:
                watch.cancel()

    def replace(self, new: Served) -> Served:
        """Serve `new` from the next request on; return the old one, which is to be retired."""
        old, self._present = self._present, new
        self._retired.add(old)
        return old

    async def retire(self, old: Served, *, patience_seconds: float, limit_seconds: float) -> None:
        """Let the requests that hold `old` finish, then stop it.

        Args:
            old: what `replace` returned.
            patience_seconds: after this time evaluations are ended.
            limit_seconds: after this time it is stopped, whoever holds it.
        """
        try:
            if not await _idle(old, patience_seconds):
                old.ending.set()
                await _idle(old, max(self._end_seconds, limit_seconds - patience_seconds))
            if old.users:
                logger.error("%s is stopped under %d requests", old.name, old.users)
        finally:
            await old.stop()
            self._retired.discard(old)

    async def stop(self) -> None:
        """Stop everything; safe to call twice."""
        await asyncio.gather(*(each.stop() for each in (self._present, *self._retired)))


async def _idle(served: Served, seconds: float) -> bool:
    if served.users == 0:
        return True
    try:
        async with asyncio.timeout(seconds):
            await served.idle.wait()
    except TimeoutError:
        return served.users == 0
    return True


def _expire(ended: asyncio.Task[bool], limit: asyncio.Timeout) -> None:
    if not ended.cancelled():
        with contextlib.suppress(RuntimeError):  # its body was left just now
            limit.reschedule(0.0)


def show(served: Served, metrics: Metrics) -> None:
    """Say in the metrics what serves."""
    space = served.tagger.space
    metrics.model.info({"name": space.name, "revision": space.revision})
    metrics.clip_weight.set(space.clip_weight)
