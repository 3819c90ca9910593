"""The one path: video and labels to scored tags; video to vectors. Routes and jobs call it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from service.background import background_labels
from service.deadline import timed, until
from service.decode.pool import DecodePool
from service.encode.process import Encoded, EncoderProcess, StaleWeightsError
from service.encode.space import EmbeddingSpace
from service.frames import FrameSlots, Slot
from service.labels import (
    LabelEncoder,
    LabelError,
    LabelLimits,
    LabelQuery,
    choose_templates,
    normalise,
    normalise_queries,
)
from service.options import choose_sampling, choose_spans, require_clip_weight, require_resident
from service.results import Classification, EmbeddedTexts, EmbeddedVideo, SegmentedVideo
from service.scoring import ScoreKind
from service.tags import LabelVectors, encode_labels, keep, label_warnings, score_tags, truncation
from service.video_encoder import VideoEncoder
from service.videoclip.manifest import Manifest, Sampling
from service.videoclip.pooling import unit

_ATTEMPTS: Final = 4

_NO_LIMITS: Final = LabelLimits(max_characters=1 << 20)
"""For the artefact's own labels, which no client sends."""

_Vectors = Callable[[float], Awaitable[LabelVectors]]


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
        self._videos = VideoEncoder(
            encoder, decoder=decoder, slots=slots, max_segments=max_segments
        )
        self._background, self._few_background = background_labels(
            [normalise(text, limits=_NO_LIMITS) for text in encoder.manifest.background_labels]
        )

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of requests made now."""
        return self._encoder.space

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
            clip_weight: refuse to answer with another λ; None: the present one.
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
        queries = normalise_queries(labels, limits=self._limits)
        prompts = self._templates(templates, template_set)
        timings: dict[str, float] = {}
        work = partial(self._vectors, queries, prompts, scores, timings)
        wanted = require_resident(clip_weight, served=self._encoder.clip_weight)
        chosen = choose_sampling(sampling, manifest=self.manifest)
        spans = choose_spans(start, end)
        async with until(deadline), self._videos.lease(chosen, clips=chosen.views) as slot:
            timings["wait"] = time.monotonic() - began
            present = self._encoder.clip_weight
            text = asyncio.create_task(work(present))  # beside the decoding
            try:
                with timed(timings, "decode"):
                    decoded = await self._decoder.decode(
                        path,
                        sampling=chosen,
                        preprocessing=self.manifest.preprocessing,
                        slot=slot,
                        spans=spans,
                    )
                with timed(timings, "encode"):
                    encoded, vectors = await self._agree(
                        slot, wanted=wanted, text=text, text_weight=present, again=work
                    )
            finally:
                text.cancel()
                await asyncio.gather(text, return_exceptions=True)
        with timed(timings, "score"):
            pooled = self._videos.pool(encoded.vectors, views=chosen.views)[0]
            tags, nothing = score_tags(
                pooled,
                labels=queries,
                vectors=vectors,
                scores=scores,
                logit_scale=encoded.logit_scale,
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
        )

    async def embed_segments(
        self,
        path: Path,
        *,
        segment_seconds: float,
        start: float | None = None,
        end: float | None = None,
        deadline: float | None = None,
    ) -> SegmentedVideo:
        """Cut a video into windows and embed each; see `VideoEncoder.embed_segments`."""
        return await self._videos.embed_segments(
            path, segment_seconds=segment_seconds, start=start, end=end, deadline=deadline
        )

    async def embed_video(self, path: Path, *, deadline: float | None = None) -> EmbeddedVideo:
        """Embed a whole video; see `VideoEncoder.embed_video`."""
        return await self._videos.embed_video(path, deadline=deadline)

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
        wanted = require_resident(clip_weight, served=self._encoder.clip_weight)
        async with until(deadline):
            for _ in range(_ATTEMPTS):
                weight = self._encoder.clip_weight if wanted is None else wanted
                try:
                    found = await self._labels.encode(plain, templates=prompts, clip_weight=weight)
                except StaleWeightsError:
                    require_resident(clip_weight, served=self._encoder.clip_weight)
                    continue
                space = self._encoder.space_at(weight)
                return EmbeddedTexts(found.vectors, space, truncation(plain, found.truncated))
        raise StaleWeightsError(f"lambda changed {_ATTEMPTS} times while texts were embedded")

    async def _agree(
        self,
        slot: Slot,
        *,
        wanted: float | None,
        text: Awaitable[LabelVectors] | None,
        text_weight: float,
        again: _Vectors,
    ) -> tuple[Encoded, LabelVectors]:
        """Encode the clips, and see that the texts are of the same λ where that matters."""
        for _ in range(_ATTEMPTS):
            try:
                encoded = await self._encoder.encode_clips(slot, clip_weight=wanted)
                weight = encoded.clip_weight
                fits = weight == text_weight or not self.manifest.text_tower_tuned
                vectors = await (text if text is not None and fits else again(weight))
                return encoded, vectors
            except StaleWeightsError:
                text = None
                # Raises if a λ was asked by name and is gone.
                require_resident(wanted, served=self._encoder.clip_weight)
        raise StaleWeightsError(f"lambda changed {_ATTEMPTS} times during one request")

    async def _vectors(
        self,
        queries: Sequence[LabelQuery],
        prompts: tuple[str, ...],
        scores: ScoreKind,
        timings: dict[str, float],
        clip_weight: float,
    ) -> LabelVectors:
        with timed(timings, "text"):
            return await encode_labels(
                self._labels,
                labels=queries,
                background=self._background if scores == "independent" else None,
                templates=prompts,
                clip_weight=clip_weight,
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
