"""The encoder process as the event loop sees it: started, called, swapped, started again."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.encode.batcher import BUCKETS, Batcher
from service.encode.builder import NetworkBuilder
from service.encode.canary import Canary
from service.encode.device import parse_device
from service.encode.dispatcher import BatchRecord, Dispatcher
from service.encode.residents import Residents
from service.encode.runtime import Precision, RuntimeName
from service.encode.space import EmbeddingSpace, Encoded, round_clip_weight
from service.encode.supervision import EncoderUnavailableError, EncoderWorker, WorkerSetup
from service.encode.trial import Trial
from service.encode.turns import Turns
from service.encode.work import NO_DEADLINE, QueueKey
from service.frames import FrameSlots, Slot
from service.videoclip.manifest import Manifest


class EncoderProcess:
    """One worker process that holds an artefact; restarted when it dies or hangs.

    Calls gather in batches (`Batcher`), clips and texts of all requests by turns. What is in flight
    when the worker dies is run once more. Work in the background (`trial`) stands back for them.
    Weights at several λ can be there at once (`hold`); each answer is of exactly one.

    Args:
        folder: the artefact.
        manifest: its manifest.
        slots: the arena that clips are read from.
        runtime: `onnx`, or `torchscript` where torch is installed.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: threads of a call; None: the cores this process may use.
        precision: what the networks compute with: float32, or a variant that the artefact has.
        clip_weight: λ to start with; None: the manifest's.
        resident: most λ whose weights are there at once.
        call_timeout_seconds: a worker that does not answer a batch for so long is killed.
        build_timeout_seconds: the same for loading an artefact and building a λ.
    """

    def __init__(
        self,
        folder: Path,
        *,
        manifest: Manifest,
        slots: FrameSlots,
        runtime: RuntimeName = "onnx",
        device: str = "cpu",
        threads: int | None = None,
        precision: Precision = "float32",
        clip_weight: float | None = None,
        resident: int = 2,
        call_timeout_seconds: float = 60.0,
        build_timeout_seconds: float = 300.0,
    ) -> None:
        self._manifest = manifest
        self._precision: Precision = precision
        self._call_timeout_seconds = call_timeout_seconds
        self._build_timeout_seconds = build_timeout_seconds
        start = manifest.default_clip_weight if clip_weight is None else clip_weight
        self._residents = Residents(
            limit=resident,
            served=round_clip_weight(start),
            build=lambda clip_weight: self._builder.build(clip_weight),
            drop=lambda clip_weight: self._builder.drop(clip_weight),
        )
        self._worker = EncoderWorker(
            WorkerSetup(
                folder=folder,
                revision=manifest.revision,
                runtime=runtime,
                threads=threads or len(os.sched_getaffinity(0)),
                device=device,
                precision=precision,
                descriptor=slots.descriptor,
                build_timeout_seconds=build_timeout_seconds,
            ),
            clip_weight=lambda: self._residents.served,
            configured=self._configured,
        )
        self.turns = Turns()
        """Who calls the worker next."""
        on_cuda = parse_device(device).kind == "cuda"
        self.batcher = Batcher(buckets=BUCKETS if on_cuda else ())
        """What waits, and what batches cost; to be read only."""
        self._dispatcher = Dispatcher(
            self._worker,
            batcher=self.batcher,
            residents=self._residents,
            turns=self.turns,
            timeout_seconds=call_timeout_seconds,
        )
        self._canary = Canary(self._worker, turns=self.turns, timeout_seconds=call_timeout_seconds)
        self._builder = NetworkBuilder(
            self._worker,
            logit_scale=self._residents.logit_scale,
            timeout_seconds=build_timeout_seconds,
        )
        self._trying = asyncio.Lock()

    @property
    def manifest(self) -> Manifest:
        """The artefact that is loaded."""
        return self._manifest

    @property
    def clip_weight(self) -> float:
        """λ of the answers to calls made now."""
        return self._residents.served

    @property
    def resident_clip_weights(self) -> tuple[float, ...]:
        """All λ whose weights are there now, ascending."""
        return tuple(sorted(self._residents.present))

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the answers to calls made now."""
        return self.space_at(self.clip_weight)

    @property
    def alive(self) -> bool:
        """Whether the worker process runs."""
        return self._worker.alive

    @property
    def ready(self) -> bool:
        """Whether it runs, has loaded the artefact, passed its check, and gets on with its work."""
        return self._worker.ready and self._dispatcher.progressing and self._canary.alive

    @property
    def state(self) -> str:
        """``ok``; ``stuck``: its process runs and does not get on; or ``down``."""
        if not self._worker.ready:
            return "down"
        return "ok" if self.ready else "stuck"

    @property
    def silent_seconds(self) -> float:
        """How long ago the worker last answered anything."""
        return time.monotonic() - self._worker.answered_at

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until clips or texts that came now would be begun."""
        return self._dispatcher.backlog_seconds

    def observe(self, tell: Callable[[BatchRecord], None]) -> None:
        """Have `tell` told of each batch that ends."""
        self._dispatcher.observe = tell

    @property
    def pid(self) -> int | None:
        """Process id of the running worker."""
        return self._worker.pid

    @property
    def restarts(self) -> int:
        """How often the worker was started again."""
        return self._worker.restarts

    def space_at(self, clip_weight: float) -> EmbeddingSpace:
        """Return the space of this artefact at `clip_weight`."""
        name, revision = self._manifest.name, self._manifest.revision
        return EmbeddingSpace(name, revision, clip_weight, self._precision)

    async def start(self) -> None:
        """Start the worker and wait until it has loaded and checked the artefact.

        Raises:
            ArtefactError: the artefact is broken; one line.
            EncoderError: the worker could not be started (no runtime installed, no memory).
        """
        await self._worker.start()
        self._dispatcher.start()
        self._canary.start()

    async def stop(self) -> None:
        """End the worker; calls in flight raise. Safe to call twice."""
        await self._canary.stop()
        await self._dispatcher.stop(EncoderUnavailableError("the encoder is stopped"))
        await self._worker.stop()

    @asynccontextmanager
    async def hold(self, clip_weight: float, *, again: bool = False) -> AsyncIterator[None]:
        """Keep the weights at `clip_weight` there, built first if need be; see `Residents.hold`."""
        async with self._residents.hold(round_clip_weight(clip_weight), again=again):
            yield

    async def encode_clips(
        self, slot: Slot, *, clip_weight: float | None = None, deadline: float | None = None
    ) -> Encoded:
        """Return the frame embeddings (clips, T, D) of the pixels in `slot`, all of one λ.

        Args:
            slot: uint8 (clips, T, S, S, 3), as decoded.
            clip_weight: the λ that is wanted, built if it is not there; None: the served one.
            deadline: `time.monotonic()` at which they are worthless; the earliest goes first.

        Raises:
            NotResidentError, NoRoomError: the weights at that λ cannot be had.
            ArtefactError: the network at that λ does not compute.
            EncoderError: the worker failed, twice.
        """
        weight = self._weight(clip_weight)
        async with self._residents.hold(weight, again=True):
            return await self._encode(QueueKey("clips", weight), slot, weight, deadline)

    async def encode_texts(
        self,
        ids: npt.NDArray[np.int64],
        *,
        clip_weight: float | None = None,
        deadline: float | None = None,
    ) -> Encoded:
        """Return the embeddings (n, D) of tokenised texts, all of one λ.

        Args:
            ids: int64 (n, L), n >= 1, as the artefact's tokenizer gives them.
            clip_weight: as `encode_clips`; a text tower that no λ changes needs no weights at it.
            deadline: as there.

        Raises: as `encode_clips`.
        """
        weight = self._weight(clip_weight)
        if not self._manifest.text_tower_tuned:
            return await self._encode(QueueKey("texts", None), ids, weight, deadline)
        async with self._residents.hold(weight, again=True):
            return await self._encode(QueueKey("texts", weight), ids, weight, deadline)

    async def set_clip_weight(self, clip_weight: float) -> EmbeddingSpace:
        """Build the weights at `clip_weight` beside the present ones, check them, then swap.

        Calls go on meanwhile; each is answered by one λ and says by which. Returns the new space.

        Raises:
            ValueError: not in [0, 1].
            ArtefactError: the network at this λ does not compute; the old one serves on.
            EncoderError: the worker failed; the old λ is kept.
        """
        wanted = round_clip_weight(clip_weight)
        if wanted != self.clip_weight or not self._worker.ready:
            await self._residents.serve(wanted)
        return self.space_at(wanted)

    @asynccontextmanager
    async def trial(self, clip_weight: float) -> AsyncIterator[Trial]:
        """Lend a network at `clip_weight` beside those that serve, which it does not touch.

        It is built at once and dropped afterwards; one is there at a time, others wait. Raises: as
        `set_clip_weight`.
        """
        trial = Trial(
            self._worker,
            clip_weight=round_clip_weight(clip_weight),
            turns=self.turns,
            call_timeout_seconds=self._call_timeout_seconds,
            build_timeout_seconds=self._build_timeout_seconds,
        )
        async with self._trying:
            try:
                async with self._builder.turn:  # two builds at once would be two networks too many
                    await trial.build()
                yield trial
            finally:
                await trial.drop()

    def _weight(self, clip_weight: float | None) -> float:
        return self.clip_weight if clip_weight is None else round_clip_weight(clip_weight)

    async def _encode(
        self,
        key: QueueKey,
        content: Slot | npt.NDArray[np.int64],
        clip_weight: float,
        deadline: float | None,
    ) -> Encoded:
        limit = NO_DEADLINE if deadline is None else deadline
        vectors = await self._dispatcher.encode(key, content, deadline=limit)
        scale = self._residents.logit_scale(clip_weight)
        return Encoded(vectors, clip_weight, scale or self._manifest.logit_scale)

    def _configured(self, answer: Header) -> None:
        """A worker has started: it has one network, and has measured it."""
        weight = float(answer["clip_weight"])
        self._residents.restarted(weight, logit_scale=float(answer["logit_scale"]))
        clip_seconds, text_seconds = answer["seconds"]
        self.batcher.costs["clips"].add(1, clip_seconds)
        self.batcher.costs["texts"].add(int(answer["tokens"]), text_seconds)
