"""``POST /classify``: one video and labels in free text; scored tags come back."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request

from service.ids import new_id
from service.labels import LabelQuery
from service.results import Classification
from service.routes.answers import model_answer, require_model, seconds_allowed, warned
from service.routes.body import video_body
from service.routes.client import attended
from service.routes.documents import video_request
from service.routes.parts import Parts, Ready
from service.routes.shapes import ClassifyAnswer, TagAnswer, Usage, VideoAnswer
from service.schemas import ClassifyRequest, Label, SamplingOptions
from service.spool import SpoolFile
from service.videoclip.manifest import Sampling

router = APIRouter(tags=["classify"])

_OPEN_VCLIP_VIEWS = 3

BODY = video_request(
    ClassifyRequest,
    fields={"labels": {"type": "array", "items": {"type": "string"}}},
    required=["labels"],
)


@router.post("/classify", summary="Tag a video with free-text labels", openapi_extra=BODY)
async def classify(request: Request, parts: Ready) -> ClassifyAnswer:
    """Score every label for the video; ``scores`` says what the numbers mean.

    ``softmax``: shares that sum to 1 over the given labels. ``cosine``: the similarity itself.
    ``independent``: each label for itself, with ``none_score`` for *none of these*.
    """
    async with video_body(request, parts, ClassifyRequest) as (options, video):
        require_model(options.model, parts)
        seconds = seconds_allowed(options.timeout_s, parts)
        with parts.admission.enter("video"):
            found = await attended(
                request,
                _classify(parts, options, video, deadline=time.monotonic() + seconds),
                seconds=seconds,
            )
        request.state.stages.update(
            {name: taken for name, taken in found.timings_seconds.items() if name != "total"}
        )
        _count(parts, options, found)
        return _answer(options, found, sha256=video.sha256)


async def _classify(
    parts: Parts, options: ClassifyRequest, video: SpoolFile, *, deadline: float
) -> Classification:
    chosen = options.sampling or SamplingOptions()
    return await parts.tagger.classify(
        video.path,
        labels=[_query(label) for label in options.labels],
        scores=options.scores,
        top_k=options.top_k,
        threshold=options.threshold,
        templates=options.templates,
        template_set=options.template_set,
        clip_weight=options.clip_weight,
        sampling=sampling_of(chosen, frames=parts.tagger.manifest.frames_per_clip),
        start=chosen.start,
        end=chosen.end,
        deadline=deadline,
    )


def _query(label: str | Label) -> LabelQuery:
    if isinstance(label, str):
        return LabelQuery((label,))
    texts = (label.text,) if isinstance(label.text, str) else tuple(label.text)
    return LabelQuery(texts, id=label.id, negative=tuple(label.negative))


def sampling_of(options: SamplingOptions, *, frames: int) -> Sampling | None:
    """The sampling that options ask for; None is the artefact's own."""
    count = frames if options.frames is None else options.frames
    if options.fps is not None:  # the schema: with these two modes, and only with them
        views = _OPEN_VCLIP_VIEWS if options.mode == "strided" else 1
        return Sampling(
            mode="strided",
            frames=count,
            views=options.views or views,
            stride_seconds=1.0 / options.fps,
        )
    if options.mode == "timestamps":
        times = tuple(options.timestamps or ())
        return Sampling(mode="explicit", frames=len(times), times_seconds=times)
    if options.mode == "keyframes":
        return Sampling(mode="keyframes", frames=count)
    if options.mode == "uniform" or options.frames is not None:
        return Sampling(mode="uniform", frames=count)
    return None


def _count(parts: Parts, options: ClassifyRequest, found: Classification) -> None:
    metrics = parts.metrics
    metrics.frames.inc(found.frames)
    metrics.video_seconds.inc(found.video.duration_seconds)
    metrics.labels.inc(len(options.labels))
    metrics.text_cache_hits.inc(found.text_cache_hits)
    if found.tags:
        metrics.top_score.labels(options.scores).observe(found.tags[0].score)
    else:
        metrics.no_tag.inc()


def _answer(options: ClassifyRequest, found: Classification, *, sha256: str) -> ClassifyAnswer:
    info = found.video
    return ClassifyAnswer(
        id=new_id("cls"),
        video=VideoAnswer(
            sha256=sha256,
            duration=round(info.duration_seconds, 6),
            fps=info.fps,
            width=info.width,
            height=info.height,
            rotation=info.rotation_degrees,
            container=info.container,
            codec=info.codec,
            frames_used=[round(moment, 6) for moment in found.frames_used],
        ),
        tags=[
            TagAnswer(
                label=tag.label,
                label_id=tag.label_id,
                score=tag.score,
                logit=tag.logit,
                cosine=tag.cosine,
            )
            for tag in found.tags
        ],
        scores=options.scores,
        none_score=found.none_score if options.allow_none else None,
        model=model_answer(found.space),
        warnings=warned(found.warnings),
        usage=Usage(
            frames=found.frames, labels=len(options.labels), text_cache_hits=found.text_cache_hits
        ),
        timings_ms={name: round(taken * 1000, 2) for name, taken in found.timings_seconds.items()},
        embedding=found.embedding.tolist() if "embedding" in options.include else None,
    )
