"""Videos to vectors: whole, or cut into segments; through a slot, a decoder and the encoder."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.deadline import spent, until
from service.decode.ahead import one_ahead
from service.decode.answers import DecodedInfo
from service.decode.picture import decode_picture
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.encode.residents import NotResidentError
from service.encode.space import round_clip_weight
from service.frames import ClipsTooLargeError, FrameSlots, Slot
from service.logs import note
from service.options import OptionError, not_resident, require_clip_weight
from service.results import EmbeddedVideo, Segment, SegmentedVideo
from service.segments import Cutting, Span, cut, groups
from service.timeline_plan import SegmentPlanner
from service.videoclip.errors import VideoTooLong, VideoWarning
from service.videoclip.manifest import Sampling
from service.videoclip.pooling import combine_views, pool, unit


class VideoEncoder:
    """Decodes into slots and encodes from them.

    Args:
        encoder: runs the artefact; started.
        decoder: decodes; started.
        slots: where pixels go between the two.
        max_segments: most segments of one video.
    """

    def __init__(
        self,
        encoder: EncoderProcess,
        *,
        decoder: DecodePool,
        slots: FrameSlots,
        max_segments: int,
    ) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._slots = slots
        self._max_segments = max_segments

    @asynccontextmanager
    async def lease(self, sampling: Sampling, *, clips: int) -> AsyncIterator[Slot]:
        """Lend a slot for `clips` clips of `sampling`; see `FrameSlots.lease`.

        Raises:
            OptionError: they can never fit a slot.
        """
        shape = self._shape(sampling, clips=clips)
        try:
            self._slots.require(shape)
        except ClipsTooLargeError as error:
            raise OptionError(
                "invalid_sampling",
                f"{clips * sampling.frames} frames of this size do not fit into one request.",
                param="sampling",
                limit=error.slot_bytes,
                actual=error.needed_bytes,
            ) from error
        async with self._slots.lease(shape) as slot:
            yield slot

    @asynccontextmanager
    async def weights(self, clip_weight: float, *, for_texts: bool = False) -> AsyncIterator[None]:
        """Have the weights at `clip_weight` there, for everything that happens inside.

        Args:
            clip_weight: λ, 4 decimals.
            for_texts: only texts will be encoded, which may not depend on λ.

        Raises:
            OptionError: another λ is served, and no others may be built.
            ArtefactError: the network at that λ does not compute.
            EncoderError: the encoder failed, or the memory is too small.
        """
        manifest = self._encoder.manifest
        note({"revision": f"{manifest.name}@{manifest.revision}", "lambda": clip_weight})
        if for_texts and not manifest.text_tower_tuned:
            yield
            return
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._encoder.hold(clip_weight))
            except NotResidentError as error:
                raise not_resident(clip_weight, served=self._encoder.clip_weight) from error
            yield

    def weight(self, clip_weight: float | None) -> float:
        """Return the λ of a request, as spaces are named; None: the served one.

        Raises:
            OptionError: not a number in [0, 1].
        """
        if clip_weight is None:
            return self._encoder.clip_weight
        require_clip_weight(clip_weight)
        return round_clip_weight(clip_weight)

    async def embed_video(
        self, path: Path, *, clip_weight: float | None = None, deadline: float | None = None
    ) -> EmbeddedVideo:
        """Return the unit vector of the whole video, sampled as the artefact says.

        Args:
            path: a local file.
            clip_weight: λ, built if its weights are not there; None: the served one.
            deadline: `time.monotonic()` at which it is worthless.

        Raises:
            as `embed_segments`.
        """
        sampling = self._encoder.manifest.sampling
        return await self._embed(path, sampling, clip_weight, is_picture=False, deadline=deadline)

    async def embed_picture(
        self, path: Path, *, clip_weight: float | None = None, deadline: float | None = None
    ) -> EmbeddedVideo:
        """Return the unit vector of a still picture: a video in which nothing moves.

        Arguments and errors as of `embed_video`; JPEG, PNG and WebP.
        """
        frames = self._encoder.manifest.sampling.frames
        sampling = Sampling(mode="uniform", frames=frames)  # all of them the same one
        found = await self._embed(path, sampling, clip_weight, is_picture=True, deadline=deadline)
        return found._replace(warnings=())  # they say that it is short, and has one frame

    async def _embed(
        self,
        path: Path,
        sampling: Sampling,
        clip_weight: float | None,
        *,
        is_picture: bool,
        deadline: float | None,
    ) -> EmbeddedVideo:
        weight = self.weight(clip_weight)
        async with (
            until(deadline),
            self.weights(weight),
            self.lease(sampling, clips=sampling.views) as slot,
        ):
            decode = partial(self._decoder.decode, deadline=deadline)
            if is_picture:
                decode = partial(decode_picture, self._decoder)
            with spent("decode"):
                decoded = await decode(
                    path,
                    sampling=sampling,
                    preprocessing=self._encoder.manifest.preprocessing,
                    slot=slot,
                )
            with spent("encode"):
                encoded = await self._encoder.encode_clips(
                    slot, clip_weight=weight, deadline=deadline
                )
        vector = unit(self.pool(encoded.vectors, views=sampling.views))[0]
        space = self._encoder.space_at(encoded.clip_weight)
        return EmbeddedVideo(vector, space, decoded.info, decoded.warnings)

    async def embed_segments(
        self,
        path: Path,
        *,
        cutting: Cutting,
        start: float | None = None,
        end: float | None = None,
        clip_weight: float | None = None,
        deadline: float | None = None,
    ) -> SegmentedVideo:
        """Cut the video into windows that touch, or shots, and embed each as one view.

        All vectors are of one space: that of `clip_weight`; None: the λ served when it begins.

        Raises:
            OptionError: weights at that λ are not to be had here, or too many shots.
            VideoError: the video's fault, or more segments than allowed.
            EncoderError, DeadlineExceededError: as `classify`.
        """
        async with until(deadline):
            find = self._shots if cutting.mode == "shots" else self._windows
            spans = await find(path, cutting, start=start, end=end)
            weight = self.weight(clip_weight)
            async with self.weights(weight):
                return await self._embed_spans(path, spans, weight, deadline=deadline)

    async def _windows(
        self, path: Path, cutting: Cutting, *, start: float | None, end: float | None
    ) -> list[Span]:
        assert cutting.length is not None  # noqa: S101 - windows have one
        info = await self._decoder.probe(path)
        spans = cut(info.duration_seconds, cutting.length, start=start, end=end)
        if len(spans) > self._max_segments:
            raise VideoTooLong(
                f"The video has {len(spans)} segments, at most {self._max_segments} fit.",
                limit=self._max_segments,
                actual=len(spans),
            )
        return spans

    async def _shots(
        self, path: Path, cutting: Cutting, *, start: float | None, end: float | None
    ) -> list[Span]:
        planner = SegmentPlanner(self._decoder, max_segments=self._max_segments)
        sampling = self._encoder.manifest.sampling
        made = await planner.plan(path, cutting=cutting, sampling=sampling, start=start, end=end)
        async with aclosing(planner.spans(path, made)) as parts:
            return [span async for found in parts for span in found]

    async def _embed_spans(
        self,
        path: Path,
        spans: Sequence[Span],
        weight: float,
        *,
        deadline: float | None,
    ) -> SegmentedVideo:
        sampling = self._encoder.manifest.sampling.model_copy(update={"views": 1})
        segments: list[Segment] = []
        warnings: dict[VideoWarning, None] = {}
        clip_bytes = int(np.prod(self._shape(sampling, clips=1)))
        size = max(1, self._slots.slot_bytes // clip_bytes)

        async def chunks() -> AsyncIterator[Sequence[Span]]:
            for chunk in groups(spans, size=size):
                yield chunk

        @asynccontextmanager
        async def decoded(chunk: Sequence[Span]) -> AsyncIterator[tuple[Slot, DecodedInfo]]:
            async with self.lease(sampling, clips=len(chunk)) as slot:
                with spent("decode"):
                    found = await self._decoder.decode(
                        path,
                        sampling=sampling,
                        preprocessing=self._encoder.manifest.preprocessing,
                        slot=slot,
                        spans=chunk,
                    )
                yield slot, found

        parts = one_ahead(chunks(), decode=decoded, room=lambda: self._slots.has_room)
        async with aclosing(parts):
            async for part in parts:
                slot, found = part.value
                with spent("encode"):
                    encoded = await self._encoder.encode_clips(
                        slot, clip_weight=weight, deadline=deadline
                    )
                await part.release()
                vectors = unit(self.pool(encoded.vectors, views=1))
                segments += [Segment(*span, v) for span, v in zip(part.item, vectors, strict=True)]
                warnings.update(dict.fromkeys(found.warnings))
        space = self._encoder.space_at(weight)
        return SegmentedVideo(found.info, tuple(segments), space, tuple(warnings))

    def pool(self, vectors: npt.NDArray[np.float32], *, views: int) -> npt.NDArray[np.float32]:
        """(clips, T, D) to (clips / views, D), as the recipe pools."""
        pooling = self._encoder.manifest.pooling
        clips = pool(vectors, pooling=pooling)
        return combine_views(clips.reshape(-1, views, clips.shape[-1]), pooling=pooling)

    def _shape(self, sampling: Sampling, *, clips: int) -> tuple[int, ...]:
        size = self._encoder.manifest.preprocessing.image_size
        return (clips, sampling.frames, size, size, 3)
