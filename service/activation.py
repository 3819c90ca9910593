"""Serving another artefact without a restart: built beside the old one, checked, swapped in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from service.child import ChildDiedError
from service.encode.supervision import EncoderError
from service.engine import Engine, EngineMaker
from service.metrics import Metrics
from service.serving import Served, Serving, show
from service.store import ArtefactStore
from service.videoclip.manifest import ArtefactError, Manifest

logger = logging.getLogger("vtag")

_NOT_HERE: Final = (EncoderError, ChildDiedError, OSError, TimeoutError, MemoryError)
"""What stops an engine from starting that is no fault of its artefact."""


class ActivationRunningError(Exception):
    """An artefact is being activated, or the requests of the one before have not ended yet."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is being activated")
        self.name = name


class ActivationFailedError(Exception):
    """The artefact may be good, but it could not be started here; the old one serves on."""


@dataclass(frozen=True)
class Activated:
    """What an activation did.

    Attributes:
        served: what serves now.
        previous: what served before, as `name@revision`.
        changed: False: it served already, nothing was built.
        seconds: from the wish to the swap.
        kept: whether the next start serves it, too.
    """

    served: Served
    previous: str
    changed: bool
    seconds: float
    kept: bool


class Activation:
    """Replaces what serves, one at a time; whatever goes wrong leaves the old one serving.

    Two engines are in memory from the start of the new one until the requests of the old one have
    ended, never three.

    Args:
        store: where artefacts are.
        maker: makes their engines.
        wrap: makes of an engine what serves.
        serving: what is replaced.
        metrics: where activations are counted.
        swapping: held at the moment of the swap; a change of λ holds it, too.
        patience_seconds: see `Serving.retire`.
        limit_seconds: see `Serving.retire`.
    """

    def __init__(
        self,
        store: ArtefactStore,
        *,
        maker: EngineMaker,
        wrap: Callable[[Engine], Served],
        serving: Serving,
        metrics: Metrics,
        swapping: asyncio.Lock,
        patience_seconds: float,
        limit_seconds: float,
    ) -> None:
        self._store = store
        self._maker = maker
        self._wrap = wrap
        self._serving = serving
        self._metrics = metrics
        self._swapping = swapping
        self._patience_seconds = patience_seconds
        self._limit_seconds = limit_seconds
        self._task: asyncio.Task[None] | None = None
        self._target = ""
        self._refusals: dict[tuple[str, str], str] = {}

    @property
    def running(self) -> str | None:
        """The artefact that is being activated, as `name@revision`."""
        return self._target if self._task is not None else None

    def refusal(self, name: str, revision: str) -> str | None:
        """Why the last activation of this artefact failed, one line; None: it did not."""
        return self._refusals.get((name, revision))

    async def activate(self, name: str, revision: str, *, keep: bool) -> Activated:
        """Serve an artefact of the store; returns after the swap, when new requests get it.

        It goes on when the caller is cancelled.

        Args:
            name: of the artefact.
            revision: of the artefact.
            keep: write it down in the store for the next start.

        Raises:
            ActivationRunningError: one at a time.
            ArtefactError: there is no such artefact, or it is broken; one line.
            ActivationFailedError: there was no process or no memory for it; one line.
        """
        if self._task is not None:
            raise ActivationRunningError(self._target)
        self._target = f"{name}@{revision}"
        swapped: asyncio.Future[Activated] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(name, revision, keep, swapped), name="activate")
        return await asyncio.shield(swapped)

    async def stop(self) -> None:
        """Give up what is being activated; safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(
        self, name: str, revision: str, keep: bool, swapped: asyncio.Future[Activated]
    ) -> None:
        old = self._serving.present
        try:
            try:
                done = await self._swap(name, revision)
                if keep:
                    done = replace(done, kept=await self._keep(name, revision))
            except (ArtefactError, ActivationFailedError) as error:
                self._refuse(name, revision, error)
                swapped.set_exception(error)
                return
            swapped.set_result(done)
            if done.changed:
                await self._serving.retire(
                    old,
                    patience_seconds=self._patience_seconds,
                    limit_seconds=self._limit_seconds,
                )
        except Exception as error:
            logger.exception("%s: activation failed", self._target)
            if not swapped.done():
                failure = ActivationFailedError(f"{self._target}: {type(error).__name__}")
                self._refuse(name, revision, failure)
                swapped.set_exception(failure)
        finally:
            self._task = None
            if not swapped.done():
                swapped.set_exception(ActivationFailedError("the service is stopping"))
            swapped.exception()  # whoever asked may have left

    async def _swap(self, name: str, revision: str) -> Activated:
        began = time.monotonic()
        old = self._serving.present
        manifest = await asyncio.to_thread(self._store.manifest, name, revision)
        if manifest == old.tagger.manifest:
            self._refusals.pop((name, revision), None)
            return Activated(old, old.name, changed=False, seconds=0.0, kept=False)
        logger.info("%s is being started beside %s", self._target, old.name)
        engine = await self._start(manifest)
        try:
            async with self._swapping:
                self._serving.replace(self._wrap(engine))
                show(self._serving.present, self._metrics)
        except BaseException:
            await engine.stop()
            raise
        seconds = time.monotonic() - began
        self._refusals.pop((name, revision), None)
        self._metrics.activations.labels("activated").inc()
        self._metrics.activation_seconds.observe(seconds)
        served = self._serving.present
        logger.info("%s serves instead of %s", served.tagger.space.id, old.name)
        return Activated(served, old.name, changed=True, seconds=seconds, kept=False)

    async def _start(self, manifest: Manifest) -> Engine:
        engine: Engine | None = None
        try:
            engine = await self._maker.make(manifest)
            await engine.start()
        except BaseException as error:
            if engine is not None:
                await engine.stop()
            if isinstance(error, ArtefactError):
                where = f"{manifest.name}/{manifest.revision}/{error.file}"
                raise ArtefactError(where, expected=error.expected, found=error.found) from error
            if isinstance(error, _NOT_HERE):
                reason = str(error) or type(error).__name__
                raise ActivationFailedError(f"{self._target}: {reason}") from error
            raise
        return engine

    async def _keep(self, name: str, revision: str) -> bool:
        try:
            await asyncio.to_thread(self._store.set_active, name, revision)
        except OSError as error:
            logger.error("%s: active.json cannot be written: %s", self._target, error.strerror)
            return False
        return True

    def _refuse(self, name: str, revision: str, error: Exception) -> None:
        self._refusals[name, revision] = str(error)
        self._metrics.activations.labels("refused").inc()
        logger.error(
            "%s is not activated, %s serves on: %s", self._target, self._serving.present.name, error
        )
