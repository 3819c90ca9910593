"""Long videos to one vector for each of their segments: chunk by chunk, in order, as they are made.

A chunk is what fits one slot. It is decoded, encoded, handed on and forgotten, so that a video of
two hours takes the memory of a short one. The slot is given back between two chunks: other
requests have their turn. While half of the slots are free the next chunk is decoded meanwhile.

Windows that overlap share pictures, and each picture is decoded once in a chunk. Where the network
looks at every picture alone, it is encoded once, too, and remembered as long as a later window
may need it. Where frames look at their neighbours (Open-VCLIP), the same picture has another
vector in each window: its neighbours differ, and so does its distance from the end of the clip,
on which all frames of a clip depend after a few layers. There every window is encoded as the clip
that the network was trained on. One long clip for many windows would be a different function, and
the exported graphs have a fixed number of frames anyway.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.deadline import spent, until
from service.decode.ahead import one_ahead
from service.decode.parts import ask_pictures
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots, Slot
from service.segments import Span, growing_groups
from service.timeline_plan import SegmentPlan, SegmentPlanner
from service.videoclip.errors import VideoWarning
from service.videoclip.manifest import Manifest
from service.videoclip.pooling import pool
from service.videoclip.timeline import Times

_SAME_TIME_SECONDS: Final = 1e-9

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncodedSegment:
    """One segment [start, end) in seconds.

    Attributes:
        pooled: float32 (D,), as the recipe pools the frames (not always of unit length).
        warnings: of these pictures.
        encoded_frames: pictures that the network looked at for it, and not for an earlier one.
    """

    start: float
    end: float
    pooled: Vector
    warnings: tuple[VideoWarning, ...]
    encoded_frames: int


def looks_at_frames_alone(manifest: Manifest) -> bool:
    """Whether the vector of a frame does not depend on the other frames of its clip.

    An artefact that does not say it counts as one whose frames do depend on each other.
    """
    architecture = manifest.architecture
    heads = architecture.get("temporal_head", "none")
    return architecture.get("temporal") == "none" and heads == "none"


class TimelineEncoder:
    """Encodes the segments of long videos.

    Args:
        encoder: runs the artefact; started.
        decoder: decodes; started.
        slots: where pixels go between the two.
        planner: cuts the videos.
    """

    def __init__(
        self,
        encoder: EncoderProcess,
        *,
        decoder: DecodePool,
        slots: FrameSlots,
        planner: SegmentPlanner,
    ) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._slots = slots
        self._planner = planner
        self._alone = looks_at_frames_alone(encoder.manifest)

    async def encode(
        self,
        path: Path,
        made: SegmentPlan,
        *,
        clip_weight: float,
        deadline: float | None = None,
    ) -> AsyncGenerator[EncodedSegment, None]:
        """Yield the segments in order, each as soon as its chunk is done.

        The slot of a chunk is not held while the caller works on its segments; that of the next
        one may be.

        Raises:
            OptionError, VideoError, DeadlineExceededError: as `SegmentPlanner.spans`.
            StaleWeightsError, EncoderError: as `EncoderProcess.encode_clips`.
        """
        size = max(1, self._slots.slot_bytes // self._picture_bytes // made.sampling.frames)
        made_of = _Vectors()
        async with (
            # Between two chunks nobody else may: lambda is switched, and the weights would go.
            self._encoder.hold(clip_weight, again=True),
            aclosing(self._chunks(path, made, size=size, deadline=deadline)) as chunks,
            aclosing(
                one_ahead(
                    chunks,
                    decode=lambda chunk: self._decoded(path, made, chunk, made_of, deadline),
                    room=lambda: self._slots.has_room,
                )
            ) as parts,
        ):
            async for part in parts:
                async with until(deadline):
                    done = await self._encoded(part.value, made_of, clip_weight, deadline)
                await part.release()
                vectors = pool(done.frames, pooling=self._encoder.manifest.pooling)
                for row, (begin, stop) in enumerate(part.item):
                    warnings = (*done.warnings, *_of_row(part.value.times[row], done.shown[row]))
                    yield EncodedSegment(begin, stop, vectors[row], warnings, done.encoded[row])
                made_of.passed(part.item[-1][1] - made.cutting.overlap)

    async def _chunks(
        self, path: Path, made: SegmentPlan, *, size: int, deadline: float | None
    ) -> AsyncGenerator[Sequence[Span], None]:
        async with aclosing(self._planner.spans(path, made, deadline=deadline)) as found:
            async for spans in found:
                for chunk in growing_groups(spans, size=size):
                    yield chunk

    @asynccontextmanager
    async def _decoded(
        self,
        path: Path,
        made: SegmentPlan,
        chunk: Sequence[Span],
        made_of: _Vectors,
        deadline: float | None,
    ) -> AsyncIterator[_Pixels]:
        """Decode the pictures of `chunk` that no chunk before it brings."""
        times = made.times(chunk)
        asked = made_of.plan(times) if self._alone else times
        if not asked.size:
            yield _Pixels(times, asked, None, asked, ())
            return
        size, frames = self._encoder.manifest.preprocessing.image_size, made.sampling.frames
        async with AsyncExitStack() as stack:
            async with until(deadline):
                # The network takes whole clips. The rest of the last one is black, and ignored.
                clips = -(-asked.size // frames)
                slot = await stack.enter_async_context(
                    self._slots.lease((clips, frames, size, size, 3))
                )
                with spent("decode"):
                    decoded = await ask_pictures(
                        self._decoder,
                        path,
                        asked,
                        preprocessing=self._encoder.manifest.preprocessing,
                        slot=Slot(slot.offset, (*asked.shape, size, size, 3)),
                        share=_share(made, times),
                    )
            yield _Pixels(times, asked, slot, decoded.times_seconds, decoded.warnings)

    async def _encoded(
        self,
        pixels: _Pixels,
        made_of: _Vectors,
        clip_weight: float,
        deadline: float | None,
    ) -> _Chunk:
        times, warnings = pixels.times, _for_segments(pixels.warnings)
        vectors: Vector | None = None
        if pixels.slot is not None:
            with spent("encode"):
                encoded = await self._encoder.encode_clips(
                    pixels.slot, clip_weight=clip_weight, deadline=deadline
                )
            vectors = encoded.vectors
        if not self._alone:
            assert vectors is not None  # noqa: S101 - every clip is asked for
            return _Chunk(vectors, pixels.shown, warnings, [times.shape[1]] * len(times))
        new = [float(time) for time in pixels.asked.ravel()]
        if vectors is not None:
            made_of.add(new, vectors.reshape(-1, vectors.shape[-1]))
        shown = {float(time): float(time) for time in times.ravel()}
        shown.update(zip(new, map(float, pixels.shown.ravel()), strict=True))
        fresh, counts = set(new), []
        for row in times:
            counts.append(len(fresh & set(map(float, row))))
            fresh -= set(map(float, row))
        return _Chunk(
            frames=np.stack([[made_of.known[float(time)] for time in row] for row in times]),
            shown=np.asarray([[shown[float(time)] for time in row] for row in times]),
            warnings=warnings,
            encoded=counts,
        )

    @property
    def _picture_bytes(self) -> int:
        return 3 * self._encoder.manifest.preprocessing.image_size**2


@dataclass(frozen=True)
class _Pixels:
    """times: (V, T), of the windows; asked: (1, N) or (V, T), of what `slot` holds; shown: alike,
    when the pictures that were used are shown."""

    times: Times
    asked: Times
    slot: Slot | None
    shown: Times
    warnings: tuple[VideoWarning, ...]


@dataclass(frozen=True)
class _Chunk:
    """frames: (V, T, D); shown: (V, T), when the pictures that were used are shown."""

    frames: Vector
    shown: Times
    warnings: tuple[VideoWarning, ...]
    encoded: Sequence[int]


class _Vectors:
    """Vectors of pictures, by their time, for as long as a later window may show them."""

    def __init__(self) -> None:
        self.known: dict[float, Vector] = {}
        self._planned: set[float] = set()
        self._border = -math.inf

    def plan(self, times: Times) -> Times:
        """Return which pictures at `times` must be decoded, (1, N); nobody is told them again."""
        new = [float(time) for time in np.unique(times) if float(time) not in self._planned]
        self._planned.update(new)
        return np.asarray([new], np.float64)

    def add(self, times: Sequence[float], vectors: Vector) -> None:
        """Keep the vectors (N or more, D) of pictures that were planned."""
        self.known.update(zip(times, vectors, strict=False))

    def passed(self, border: float) -> None:
        """Forget what is before the border that was passed last: the next chunk is planned by now.

        One picture before it may still be on screen.
        """
        old = sorted(time for time in self.known if time < self._border)
        for time in old[:-1]:
            del self.known[time]
            self._planned.discard(time)
        self._border = border


def _share(made: SegmentPlan, times: Times) -> float:
    return min(1.0, float(times.max() - times.min()) / made.timeline.end_seconds)


def _for_segments(warnings: Sequence[VideoWarning]) -> tuple[VideoWarning, ...]:
    # Of a chunk that was decoded in one go; each segment counts its own pictures.
    return tuple(warning for warning in warnings if warning.code != "frames_repeated")


def _of_row(planned: Times, shown: Times) -> Iterator[VideoWarning]:
    different = len(np.unique(shown))
    if different < len(shown):
        yield VideoWarning(
            "frames_repeated",
            f"{len(shown)} pictures were asked for, {different} different ones are there",
        )
    if np.any(np.abs(planned - shown) > _SAME_TIME_SECONDS):
        yield VideoWarning(
            "damaged_stream",
            "pictures of this segment could not be decoded; good ones before them were used",
        )
