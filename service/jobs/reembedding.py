"""One video of the index in another space: its windows decoded again, for a trial network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.encode.trial import Trial
from service.frames import map_slot
from service.index.segment import Cut, NewSegment
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.standing_back import stand_back
from service.media.library import MediaLibrary
from service.segments import Span, groups
from service.videoclip.pooling import combine_views, pool, unit


class Reembedder:
    """Embeds as `POST /videos` does, and stands back for requests at each step.

    Args:
        tools: of the artefact.
        media: where the videos are.
    """

    def __init__(self, tools: EvaluationTools, *, media: MediaLibrary) -> None:
        manifest = tools.encoder.manifest
        size = manifest.preprocessing.image_size
        self._tools = tools
        self._media = media
        self._sampling = manifest.sampling.model_copy(update={"views": 1})
        self._clip = (self._sampling.frames, size, size, 3)
        self._at_once = max(1, tools.slots.slot_bytes // int(np.prod(self._clip)))

    async def embed(
        self, cut: Cut, trial: Trial, *, tell: Callable[[int], None]
    ) -> Sequence[NewSegment]:
        """Return the segments of a video in the space of `trial`, in the windows that it has.

        Args:
            cut: the video.
            trial: the network.
            tell: told of how many segments are done.

        Raises:
            VideoError: it cannot be decoded.
            ApiError: as `MediaLibrary.local`.
            TrialGoneError: the network must be built again; then the video begins anew.
            EncoderError: the encoder failed.
        """
        found: list[NewSegment] = []
        async with self._media.local(cut.sha256) as path:
            for spans in groups(cut.spans, size=self._at_once):
                await stand_back(self._tools)
                pixels = await self._decode(path, spans)
                vectors = unit(self._pool(await trial.encode_clips(pixels)))
                found += [NewSegment(*s, v) for s, v in zip(spans, vectors, strict=True)]
                tell(len(found))
        return found

    async def _decode(self, path: Path, spans: Sequence[Span]) -> npt.NDArray[np.uint8]:
        tools = self._tools
        async with tools.slots.lease((len(spans), *self._clip)) as slot:
            await tools.decoder.decode(
                path,
                sampling=self._sampling,
                preprocessing=tools.encoder.manifest.preprocessing,
                slot=slot,
                spans=spans,
            )
            # A copy: the slot is free for requests while the encoder stands back for them.
            return map_slot(tools.slots.descriptor, slot=slot).copy()

    def _pool(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        pooling = self._tools.encoder.manifest.pooling
        return combine_views(pool(vectors, pooling=pooling)[:, None], pooling=pooling)
