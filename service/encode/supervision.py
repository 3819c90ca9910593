"""One encoder worker: started, configured, asked, and started again when it dies or hangs."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.channel import Header
from service.child import Child, ChildDiedError
from service.encode.runtime import Precision, RuntimeName
from service.videoclip.manifest import ArtefactError

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LAST_BACKOFF_SECONDS: Final = 30.0
_MAX_ANSWER_BYTES: Final = 1 << 30


class EncoderError(Exception):
    """The encoder could not give an answer: its own fault, not the input's."""

    code = "encoder_unavailable"
    detail = "The encoder could not answer."


class EncoderUnavailableError(EncoderError):
    """The encoder is not ready and did not become so in time."""


class EncoderMemoryError(EncoderError):
    """The device has no memory for so much at once."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is told when it starts.

    Attributes:
        folder: the artefact.
        revision: that must be in it.
        runtime: which runtime.
        threads: threads of one call.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: what the networks compute with.
        descriptor: of the frame arena.
        build_timeout_seconds: for loading and for building a λ.
        name: what messages call it.
        module: what runs in the process.
    """

    folder: Path
    revision: str
    runtime: RuntimeName
    threads: int
    device: str
    precision: Precision
    descriptor: int
    build_timeout_seconds: float
    name: str = "encoder"
    module: str = "service.encode.worker"


class EncoderWorker:
    """The worker process and its supervisor.

    Args:
        setup: constant facts.
        clip_weight: gives the λ to start with, at each start.
        configured: told the answer of each worker that has started.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        *,
        clip_weight: Callable[[], float],
        configured: Callable[[Header], None],
    ) -> None:
        self._setup = setup
        self._clip_weight = clip_weight
        self._tell = configured
        self._child: Child | None = None
        self._configured = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False
        self.scales: dict[float, float] = {}
        """λ whose weights it has, or had when it died -> logit scale; another dict for each start,
        so what is noted late of one that died is not taken for true of the next."""
        self.restarts = 0
        self.answered_at = time.monotonic()
        """When it last answered anything: a batch, the canary, a build."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    @property
    def ready(self) -> bool:
        """Whether it runs, has loaded the artefact, and has passed its check."""
        return self.present is not None

    @property
    def present(self) -> Child | None:
        """The child if it is ready now."""
        return self._child if self.alive and self._configured.is_set() else None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Start the worker and wait until it has loaded and checked the artefact.

        Raises:
            ArtefactError: the artefact is broken; one line.
            EncoderError: the worker could not be started (no runtime installed, no memory).
        """
        self._stopping = False
        self._configured.clear()
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(
            self._supervise(), name=f"{self._setup.name}-supervisor"
        )

    async def stop(self) -> None:
        """End the worker; calls in flight raise. Safe to call twice."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
        self._configured.set()  # wakes who waits for a child: they see that there is none
        if self._child is not None:
            await self._child.stop(grace_seconds=1.0)
            self._child = None

    async def ask(
        self, child: Child, header: Header, *, payload: bytes = b"", timeout: float
    ) -> tuple[Header, bytes]:
        """Return the answer of `child`, which is killed when none comes in `timeout` seconds.

        Raises:
            ChildDiedError: it died or was killed.
            ArtefactError: it says that the artefact does not work.
            EncoderError: it says that it failed.
        """
        try:
            async with asyncio.timeout(timeout):
                answer, output = await child.call(header, payload=payload)
        except TimeoutError:
            name = self._setup.name
            _log.error("%s did not answer %s in %g s: killed", name, header["op"], timeout)
            status = await child.kill()
            raise ChildDiedError(name, status=status, taken=True) from None
        self.answered_at = time.monotonic()
        if "artefact" in answer:
            raise ArtefactError(**answer["artefact"])
        if "failure" in answer:
            kind = EncoderMemoryError if answer.get("memory") else EncoderError
            raise kind(str(answer["failure"]))
        return answer, output

    async def child(self) -> Child:
        """Return the child that is ready, waiting for one if need be.

        Raises:
            EncoderUnavailableError: none became ready in time, or the encoder is stopped.
        """
        while True:
            if self._stopping:
                raise EncoderUnavailableError("the encoder is stopped")
            if (child := self.present) is not None:
                return child
            if self._child is not None and not self._child.alive:
                self._configured.clear()  # the supervisor may not have seen it yet
            try:
                async with asyncio.timeout(self._setup.build_timeout_seconds):
                    await self._configured.wait()
            except TimeoutError:
                raise EncoderUnavailableError("the encoder is not ready") from None

    async def _launch(self) -> None:
        while True:
            clip_weight = self._clip_weight()
            child, answer = await self._configure(clip_weight)
            if clip_weight == self._clip_weight():
                break
            await child.kill()  # other workers have put another λ to serve meanwhile
        self.scales = {clip_weight: float(answer["logit_scale"])}
        self._tell(answer)
        self._configured.set()

    async def _configure(self, clip_weight: float) -> tuple[Child, Header]:
        # Settings of this service may hold secrets, and the worker needs none of them.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VTAG_")}
        try:
            child = await Child.start(
                self._setup.module,
                name=self._setup.name,
                environment={**kept, "OMP_WAIT_POLICY": "PASSIVE"},
                folder=Path("/"),
                descriptors=(self._setup.descriptor,),
                max_payload_bytes=_MAX_ANSWER_BYTES,
            )
        except OSError as error:
            raise EncoderError(f"no process: {error.strerror}") from error
        self._child = child
        header: Header = {
            "op": "configure",
            "folder": str(self._setup.folder.absolute()),
            "runtime": self._setup.runtime,
            "threads": self._setup.threads,
            "device": self._setup.device,
            "precision": self._setup.precision,
            "clip_weight": clip_weight,
            "descriptor": self._setup.descriptor,
        }
        try:
            answer, _ = await self.ask(child, header, timeout=self._setup.build_timeout_seconds)
            if answer["revision"] != self._setup.revision:
                raise ArtefactError(
                    "manifest.json",
                    expected=f"revision {self._setup.revision}",
                    found=str(answer["revision"]),
                )
        except ChildDiedError as error:
            raise EncoderError(str(error)) from error
        except BaseException:
            await child.kill()
            raise
        return child, answer

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_seconds = _FIRST_BACKOFF_SECONDS
        while True:
            started = loop.time()
            if self._child is not None:
                status = await self._child.wait()
                self._configured.clear()
                await self._child.kill()
                _log.warning("%s ended with status %d", self._setup.name, status)
            if loop.time() - started > 2 * _LAST_BACKOFF_SECONDS:
                backoff_seconds = _FIRST_BACKOFF_SECONDS
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(2 * backoff_seconds, _LAST_BACKOFF_SECONDS)
            self.restarts += 1
            try:
                await self._launch()
            except (ArtefactError, EncoderError) as error:
                _log.error("%s did not start: %s", self._setup.name, error)


async def first_ready(workers: Sequence[EncoderWorker]) -> None:
    """Wait until one of them is ready.

    Raises:
        EncoderUnavailableError: none became so in time, or they are stopped.
    """
    if any(worker.ready for worker in workers):
        return
    waiting = [asyncio.ensure_future(worker.child()) for worker in workers]
    try:
        failure = EncoderUnavailableError("there is no encoder")
        for first in asyncio.as_completed(waiting):
            try:
                await first
            except EncoderUnavailableError as error:
                failure = error
            else:
                return
        raise failure
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
