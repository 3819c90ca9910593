"""The encoder process as the event loop sees it: started, called, swapped, started again."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.child import ChildDiedError
from service.encode.runtime import RuntimeName
from service.encode.space import EmbeddingSpace, round_clip_weight
from service.encode.supervision import EncoderError, EncoderWorker, WorkerSetup
from service.frames import FrameSlots, Slot
from service.videoclip.manifest import Manifest

_PIXELS_PER_CALL: Final = 8 * 224 * 224
"""Pixels of one call: a ViT clip of 8 frames fills the matrix unit of a CPU, more only wait."""

_TEXTS_PER_CALL: Final = 256
_FRESH_ATTEMPTS: Final = 5


class StaleWeightsError(Exception):
    """λ changed meanwhile: an answer with the asked weights cannot be given any more."""

    code = "encoder_unavailable"
    detail = "lambda is being changed; try again."


@dataclass(frozen=True)
class Encoded:
    """Embeddings and the weights that made them.

    Attributes:
        vectors: float32 (clips, T, D) of frames or (n, D) of texts; finite, not normalised.
        clip_weight: λ of the weights.
        logit_scale: scale of the logits at this λ.
    """

    vectors: npt.NDArray[np.float32]
    clip_weight: float
    logit_scale: float


class EncoderProcess:
    """One worker process that holds an artefact; restarted when it dies or hangs.

    Calls go one at a time, in order of arrival, in pieces: a video and a large set of labels take
    turns. A piece that is in flight when the worker dies is sent once more.

    Args:
        folder: the artefact.
        manifest: its manifest.
        slots: the arena that clips are read from.
        runtime: `onnx`, or `torchscript` where torch is installed.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: threads of a call; None: the cores this process may use.
        clip_weight: λ to start with; None: the manifest's.
        call_timeout_seconds: a worker that does not answer a piece for so long is killed.
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
        clip_weight: float | None = None,
        call_timeout_seconds: float = 60.0,
        build_timeout_seconds: float = 300.0,
    ) -> None:
        self._manifest = manifest
        start = manifest.default_clip_weight if clip_weight is None else clip_weight
        self._clip_weight = round_clip_weight(start)
        self._call_timeout_seconds = call_timeout_seconds
        self._build_timeout_seconds = build_timeout_seconds
        self._worker = EncoderWorker(
            WorkerSetup(
                folder=folder,
                revision=manifest.revision,
                runtime=runtime,
                threads=threads or len(os.sched_getaffinity(0)),
                device=device,
                descriptor=slots.descriptor,
                build_timeout_seconds=build_timeout_seconds,
            ),
            clip_weight=lambda: self._clip_weight,
        )
        self._turn = asyncio.Lock()
        self._switching = asyncio.Lock()

    @property
    def manifest(self) -> Manifest:
        """The artefact that is loaded."""
        return self._manifest

    @property
    def clip_weight(self) -> float:
        """λ of the answers to calls made now."""
        return self._clip_weight

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the answers to calls made now."""
        return self.space_at(self._clip_weight)

    @property
    def alive(self) -> bool:
        """Whether the worker process runs."""
        return self._worker.alive

    @property
    def ready(self) -> bool:
        """Whether it runs, has loaded the artefact, and has passed its check."""
        return self._worker.ready

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
        return EmbeddingSpace(self._manifest.name, self._manifest.revision, clip_weight)

    async def start(self) -> None:
        """Start the worker and wait until it has loaded and checked the artefact.

        Raises:
            ArtefactError: the artefact is broken; one line.
            EncoderError: the worker could not be started (no runtime installed, no memory).
        """
        await self._worker.start()

    async def stop(self) -> None:
        """End the worker; calls in flight raise. Safe to call twice."""
        await self._worker.stop()

    async def encode_clips(self, slot: Slot, *, clip_weight: float | None = None) -> Encoded:
        """Return the frame embeddings (clips, T, D) of the pixels in `slot`, all of one λ.

        Args:
            slot: uint8 (clips, T, S, S, 3), as decoded.
            clip_weight: the λ that is wanted; None: the present one.

        Raises:
            StaleWeightsError: `clip_weight` is not the present λ.
            EncoderError: the worker failed, twice if it died.
        """
        clips = slot.shape[0]
        frame_pixels = slot.shape[1] * slot.shape[2] * slot.shape[3]
        step = max(1, _PIXELS_PER_CALL // frame_pixels)
        pieces = [
            {
                "op": "clips",
                "offset": slot.offset,
                "shape": list(slot.shape),
                "first": first,
                "last": min(first + step, clips),
            }
            for first in range(0, clips, step)
        ]
        return await self._encode([(piece, b"") for piece in pieces], clip_weight)

    async def encode_texts(
        self, ids: npt.NDArray[np.int64], *, clip_weight: float | None = None
    ) -> Encoded:
        """Return the embeddings (n, D) of tokenised texts, all of one λ.

        Args:
            ids: int64 (n, L), n >= 1, as the artefact's tokenizer gives them.
            clip_weight: the λ that is wanted; None: the present one.

        Raises:
            StaleWeightsError: `clip_weight` is not the present λ and the text tower depends on λ.
            EncoderError: the worker failed, twice if it died.
        """
        pieces: list[tuple[Header, bytes]] = []
        for first in range(0, len(ids), _TEXTS_PER_CALL):
            part = np.ascontiguousarray(ids[first : first + _TEXTS_PER_CALL])
            pieces.append(({"op": "texts", "shape": list(part.shape)}, part.tobytes()))
        return await self._encode(pieces, clip_weight)

    async def set_clip_weight(self, clip_weight: float) -> EmbeddingSpace:
        """Build the weights at `clip_weight` beside the present ones, check them, then swap.

        Calls go on meanwhile; each is answered by one λ and says by which.

        Returns:
            The new space.

        Raises:
            ValueError: not in [0, 1].
            ArtefactError: the network at this λ does not compute; the old one serves on.
            EncoderError: the worker failed; the old λ is kept.
        """
        wanted = round_clip_weight(clip_weight)
        async with self._switching:
            if wanted == self._clip_weight and self.ready:
                return self.space
            child = await self._worker.child()
            try:
                answer, _ = await self._worker.ask(
                    child, {"op": "set", "clip_weight": wanted}, timeout=self._build_timeout_seconds
                )
            except ChildDiedError:
                raise EncoderError(f"the encoder died building clip_weight {wanted}") from None
            self._clip_weight = float(answer["clip_weight"])
            return self.space

    async def _encode(
        self, pieces: list[tuple[Header, bytes]], clip_weight: float | None
    ) -> Encoded:
        for _ in range(_FRESH_ATTEMPTS):
            parts: list[Encoded] = []
            for header, payload in pieces:
                expect = parts[0].clip_weight if parts else clip_weight
                part = await self._piece({**header, "expect": expect}, payload)
                if part is None:
                    break
                parts.append(part)
            else:
                vectors = np.concatenate([part.vectors for part in parts])
                return Encoded(vectors, parts[0].clip_weight, parts[0].logit_scale)
            if not parts:
                # The very first piece was refused: the caller's λ is not the present one.
                raise StaleWeightsError(f"clip_weight {clip_weight} is not served any more")
            if clip_weight is not None:
                raise StaleWeightsError(f"clip_weight {clip_weight} was replaced meanwhile")
        raise StaleWeightsError(f"clip_weight changed {_FRESH_ATTEMPTS} times while encoding")

    async def _piece(self, header: Header, payload: bytes) -> Encoded | None:
        for attempt in (1, 2):
            async with self._turn:
                child = await self._worker.child()
                try:
                    answer, output = await self._worker.ask(
                        child, header, payload=payload, timeout=self._call_timeout_seconds
                    )
                except ChildDiedError:
                    if attempt == 2:
                        raise EncoderError("the encoder died twice on one call") from None
                    continue
            if answer.get("stale"):
                return None
            vectors = np.frombuffer(output, np.float32).reshape(answer["shape"])
            return Encoded(vectors, float(answer["clip_weight"]), float(answer["logit_scale"]))
        raise AssertionError("unreachable")
