"""The one path: video and labels to scored tags; video to vectors. Routes and jobs call it."""

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from service.deadline import reached, timed, until
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.encode.space import EmbeddingSpace
from service.frames import FrameSlots
from service.label_encoder import LabelEncoder
from service.labels import (
    LabelError,
    LabelLimits,
    LabelQuery,
    choose_templates,
    normalise,
    normalise_queries,
    require_sentences,
)
from service.options import choose_sampling, choose_spans, require_clip_weight
from service.results import Classification, EmbeddedTexts
from service.scoring import ScoreKind
from service.tags import (
    LabelVectors,
    encode_labels,
    flat_texts,
    keep,
    label_warnings,
    score_tags,
    truncation,
)
from service.timeline_tagger import TimelineTagger
from service.video_encoder import VideoEncoder
from service.videoclip.background import background_labels
from service.videoclip.manifest import Manifest, Sampling
from service.videoclip.pooling import unit

_LABEL_SETS: Final = 16
"""Sets of labels that are kept as they were normalised."""

_NO_LIMITS: Final = LabelLimits(max_characters=1 << 20)
"""For the artefact's own labels, which no client sends."""


class Tagger:
    """Joins decoding, encoding, labels and scoring.

    Args:
        encoder: runs the artefact; started.
        decoder: decodes; started.
        slots: where pixels go between the two.
        labels: texts to vectors.
        limits: of labels and templates.
        max_segments: most segments of one video.
    """

    def __init__(
        self,
        *,
        encoder: EncoderProcess,
        decoder: DecodePool,
        slots: FrameSlots,
        labels: LabelEncoder,
        limits: LabelLimits | None = None,
        max_segments: int = 2000,
    ) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._labels = labels
        self._limits = limits or LabelLimits()
        # Clients ask many videos for the same labels; a set that is refused is not kept.
        self._normalised = lru_cache(_LABEL_SETS)(partial(normalise_queries, limits=self._limits))
        self.videos = VideoEncoder(encoder, decoder=decoder, slots=slots, max_segments=max_segments)
        """Videos to vectors, without labels."""
        self._background, self._few_background = background_labels(
            [normalise(text, limits=_NO_LIMITS) for text in encoder.manifest.background_labels]
        )
        self.segments = TimelineTagger(
            encoder,
            decoder=decoder,
            slots=slots,
            labels=labels,
            limits=self._limits,
            background=self._background,
            max_segments=max_segments,
        )

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of requests made now."""
        return self._encoder.space

    @property
    def resident_clip_weights(self) -> tuple[float, ...]:
        """All λ whose weights are there, ascending."""
        return self._encoder.resident_clip_weights

    @property
    def manifest(self) -> Manifest:
        """The artefact that is served."""
        return self._encoder.manifest

    async def warm(self) -> None:
        """Encode the background labels with the default templates, so that no request waits."""
        templates = self._templates(None, None)
        await self._labels.encode(
            self._background, templates=templates, clip_weight=self._encoder.clip_weight
        )

    async def set_clip_weight(self, clip_weight: float) -> EmbeddingSpace:
        """Serve another λ; see `EncoderProcess.set_clip_weight`.

        Raises:
            OptionError: not a number in [0, 1].
        """
        require_clip_weight(clip_weight)
        return await self._encoder.set_clip_weight(clip_weight)

    async def classify(
        self,
        path: Path,
        *,
        labels: Sequence[LabelQuery],
        scores: ScoreKind = "softmax",
        top_k: int | None = None,
        threshold: float | None = None,
        templates: Sequence[str] | None = None,
        template_set: str | None = None,
        clip_weight: float | None = None,
        sampling: Sampling | None = None,
        start: float | None = None,
        end: float | None = None,
        deadline: float | None = None,
    ) -> Classification:
        """Score `labels` for the video at `path`.

        Args:
            path: a local file.
            labels: what may be in it.
            scores: kind of score, see `service.scoring`.
            top_k: most tags returned.
            threshold: least score returned.
            templates: own prompt templates, each with one `{}`.
            template_set: or the name of a set; neither: the artefact's.
            clip_weight: λ, built if its weights are not there; None: the served one.
            sampling: which frames; None: the artefact's.
            start: seconds, where the looked-at part begins.
            end: seconds, where it ends.
            deadline: `time.monotonic()` at which the answer is worthless.

        Raises:
            LabelError, OptionError: the request's fault.
            VideoError: the video's fault.
            EncoderError: ours.
            DeadlineExceededError: too late.
        """
        began = time.monotonic()
        queries = self._normalised(tuple(labels))
        prompts = self._templates(templates, template_set)
        require_sentences(len(flat_texts(queries)), len(prompts), limits=self._limits)
        timings: dict[str, float] = {}
        weight = self.videos.weight(clip_weight)
        chosen = choose_sampling(sampling, manifest=self.manifest)
        spans = choose_spans(start, end)
        async with (
            until(deadline),
            self.videos.weights(weight),
            self.videos.lease(chosen, clips=chosen.views) as slot,
        ):
            timings["wait"] = time.monotonic() - began
            text = asyncio.create_task(  # beside the decoding
                self._vectors(queries, prompts, scores, weight, timings=timings, deadline=deadline)
            )
            try:
                with timed(timings, "decode"):
                    decoded = await self._decoder.decode(
                        path,
                        sampling=chosen,
                        preprocessing=self.manifest.preprocessing,
                        slot=slot,
                        spans=spans,
                        deadline=deadline,
                    )
                with timed(timings, "encode"):
                    encoded = await self._encoder.encode_clips(
                        slot, clip_weight=weight, deadline=deadline
                    )
                    vectors = await text
            finally:
                text.cancel()
                await asyncio.gather(text, return_exceptions=True)
        reached("answer")
        with timed(timings, "score"):
            pooled = self.videos.pool(encoded.vectors, views=chosen.views)[0]
            fitted = self.manifest.calibration
            tags, nothing = score_tags(
                pooled,
                labels=queries,
                vectors=vectors,
                scores=scores,
                logit_scale=encoded.logit_scale,
                calibration=None if fitted is None else fitted.at(encoded.clip_weight),
            )
        timings["total"] = time.monotonic() - began
        return Classification(
            video=decoded.info,
            frames_used=tuple(sorted({float(t) for t in decoded.times_seconds.ravel()})),
            tags=keep(tags, top_k=top_k, threshold=threshold),
            none_score=nothing,
            space=self._encoder.space_at(encoded.clip_weight),
            warnings=(
                *decoded.warnings,
                *label_warnings(
                    queries, vectors, scores=scores, few_background=self._few_background
                ),
            ),
            timings_seconds=timings,
            text_cache_hits=vectors.texts.cache_hits,
            frames=int(decoded.times_seconds.size),
            embedding=unit(pooled),
            logit_scale=encoded.logit_scale,
        )

    async def embed_texts(
        self,
        texts: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        template_set: str | None = None,
        clip_weight: float | None = None,
        deadline: float | None = None,
    ) -> EmbeddedTexts:
        """Return the unit classifier vectors (n, D) of `texts`; templates as in `classify`.

        Raises:
            LabelError, OptionError: the request's fault.
            EncoderError, DeadlineExceededError: as `classify`.
        """
        prompts = self._templates(templates, template_set)
        plain = [normalise(text, param="input", limits=self._limits) for text in texts]
        if not plain:
            raise LabelError("no_labels", "Give at least one text.", param="input")
        require_sentences(len(plain), len(prompts), param="input", limits=self._limits)
        weight = self.videos.weight(clip_weight)
        async with until(deadline), self.videos.weights(weight, for_texts=True):
            found = await self._labels.encode(
                plain, templates=prompts, clip_weight=weight, deadline=deadline
            )
        space = self._encoder.space_at(weight)
        return EmbeddedTexts(found.vectors, space, truncation(plain, found.truncated))

    async def _vectors(
        self,
        queries: Sequence[LabelQuery],
        prompts: tuple[str, ...],
        scores: ScoreKind,
        clip_weight: float,
        *,
        timings: dict[str, float],
        deadline: float | None,
    ) -> LabelVectors:
        with timed(timings, "text"):
            return await encode_labels(
                self._labels,
                labels=queries,
                background=self._background if scores == "independent" else None,
                templates=prompts,
                clip_weight=clip_weight,
                deadline=deadline,
            )

    def _templates(
        self, templates: Sequence[str] | None, template_set: str | None
    ) -> tuple[str, ...]:
        return choose_templates(
            templates=templates,
            template_set=template_set,
            default_set=self.manifest.template_set,
            limits=self._limits,
        )
