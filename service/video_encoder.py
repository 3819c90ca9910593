"""Videos to vectors: whole, or cut into segments; through a slot, a decoder and the encoder."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.deadline import until
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess, StaleWeightsError
from service.frames import ClipsTooLargeError, FrameSlots, Slot
from service.options import OptionError
from service.results import EmbeddedVideo, Segment, SegmentedVideo
from service.segments import cut, groups
from service.videoclip.errors import VideoTooLong, VideoWarning
from service.videoclip.manifest import Sampling
from service.videoclip.pooling import combine_views, pool, unit

_ATTEMPTS: Final = 4


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

    async def embed_video(self, path: Path, *, deadline: float | None = None) -> EmbeddedVideo:
        """Return the unit vector of the whole video, sampled as the artefact says."""
        sampling = self._encoder.manifest.sampling
        async with until(deadline), self.lease(sampling, clips=sampling.views) as slot:
            decoded = await self._decoder.decode(
                path,
                sampling=sampling,
                preprocessing=self._encoder.manifest.preprocessing,
                slot=slot,
            )
            encoded = await self._encoder.encode_clips(slot)
        vector = unit(self.pool(encoded.vectors, views=sampling.views))[0]
        space = self._encoder.space_at(encoded.clip_weight)
        return EmbeddedVideo(vector, space, decoded.info, decoded.warnings)

    async def embed_segments(
        self,
        path: Path,
        *,
        segment_seconds: float,
        start: float | None = None,
        end: float | None = None,
        deadline: float | None = None,
    ) -> SegmentedVideo:
        """Cut the video into windows of `segment_seconds` and embed each as one view.

        All vectors are of one space: when λ changes meanwhile, everything is encoded again.

        Raises:
            VideoError: the video's fault, or more segments than allowed.
            EncoderError, DeadlineExceededError: as `classify`.
        """
        async with until(deadline):
            info = await self._decoder.probe(path)
            spans = cut(info.duration_seconds, segment_seconds, start=start, end=end)
            if len(spans) > self._max_segments:
                raise VideoTooLong(
                    f"The video has {len(spans)} segments, at most {self._max_segments} fit.",
                    limit=self._max_segments,
                    actual=len(spans),
                )
            for _ in range(_ATTEMPTS):
                try:
                    return await self._embed_spans(path, spans)
                except StaleWeightsError:
                    continue
            raise StaleWeightsError(f"lambda changed {_ATTEMPTS} times while a video was embedded")

    async def _embed_spans(
        self, path: Path, spans: Sequence[tuple[float, float]]
    ) -> SegmentedVideo:
        sampling = self._encoder.manifest.sampling.model_copy(update={"views": 1})
        weight: float | None = None
        segments: list[Segment] = []
        warnings: dict[VideoWarning, None] = {}
        clip_bytes = int(np.prod(self._shape(sampling, clips=1)))
        for part in groups(spans, size=max(1, self._slots.slot_bytes // clip_bytes)):
            async with self.lease(sampling, clips=len(part)) as slot:
                decoded = await self._decoder.decode(
                    path,
                    sampling=sampling,
                    preprocessing=self._encoder.manifest.preprocessing,
                    slot=slot,
                    spans=part,
                )
                encoded = await self._encoder.encode_clips(slot, clip_weight=weight)
            weight = encoded.clip_weight
            vectors = unit(self.pool(encoded.vectors, views=1))
            segments += [Segment(*span, vector) for span, vector in zip(part, vectors, strict=True)]
            warnings.update(dict.fromkeys(decoded.warnings))
        assert weight is not None  # noqa: S101 - there is at least one span
        space = self._encoder.space_at(weight)
        return SegmentedVideo(decoded.info, tuple(segments), space, tuple(warnings))

    def pool(self, vectors: npt.NDArray[np.float32], *, views: int) -> npt.NDArray[np.float32]:
        """(clips, T, D) to (clips / views, D), as the recipe pools."""
        pooling = self._encoder.manifest.pooling
        clips = pool(vectors, pooling=pooling)
        return combine_views(clips.reshape(-1, views, clips.shape[-1]), pooling=pooling)

    def _shape(self, sampling: Sampling, *, clips: int) -> tuple[int, ...]:
        size = self._encoder.manifest.preprocessing.image_size
        return (clips, sampling.frames, size, size, 3)
