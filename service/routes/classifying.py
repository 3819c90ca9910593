"""One request to ``/classify`` that was read: the work, and its answer as a whole or in events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import Request

from service.asked import Segments, query, require_room, sampling_of
from service.ids import new_id
from service.results import Classification, TaggedSegment
from service.routes.answers import model_answer, tag_answers, warned
from service.routes.event_stream import Event
from service.routes.parts import Parts
from service.routes.shapes import (
    ClassifyAnswer,
    ClassifyDone,
    ClassifyMeta,
    SegmentAnswer,
    Usage,
    VideoAnswer,
)
from service.schemas import ClassifyRequest, SamplingOptions
from service.spool import SpoolFile
from service.timeline_plan import SegmentPlan
from service.videoclip.manifest import Sampling


class Classifying:
    """One request that was read: what it asks for, and the answer as a whole or in events."""

    def __init__(
        self,
        request: Request,
        parts: Parts,
        options: ClassifyRequest,
        video: SpoolFile,
        segments: Segments | None,
        *,
        seconds: float,
    ) -> None:
        self.request = request
        self.parts = parts
        self.seconds = seconds
        self._options = options
        self._video = video
        self._segments = segments
        self._began = time.monotonic()
        self._deadline = self._began + seconds

    async def answer(self) -> ClassifyAnswer:
        """Everything at once.

        Raises:
            ApiError: ``too_many_segments``: more tags than one answer may hold.
            and as `Tagger.classify` and `TimelineTagger.tag`.
        """
        found = await self._whole()
        answer = _answer(self._options, found, sha256=self._video.sha256)
        async with self._kept(found):
            made = await self._plan()
            if made is None:
                return answer
            labels = len(self._options.labels)
            each = labels if self._options.top_k is None else min(labels, self._options.top_k)
            if made.count is not None and self._keeps_all:
                self._require_room(made.count * each)
            answer.segments = []
            kept = 0
            async with aclosing(self._segments_of(made, found)) as segments:
                async for segment in segments:
                    kept += len(segment.tags)
                    self._require_room(kept)
                    answer.segments.append(_segment_answer(self._options, segment))
                    answer.usage.frames += segment.encoded_frames
        self.parts.metrics.frames.inc(answer.usage.frames - found.frames)
        answer.timings_ms |= self._segment_time(found)
        return answer

    async def events(self) -> AsyncGenerator[Event, None]:
        """``meta``, a ``segment`` for each, ``done``. Nothing of them is kept.

        Raises: as `answer`, but for the number of tags.
        """
        found = await self._whole()
        answer = _answer(self._options, found, sha256=self._video.sha256)
        count, frames = 0, found.frames
        async with self._kept(found):
            made = await self._plan()
            planned = 0 if made is None else made.count
            yield _event("meta", ClassifyMeta(**dict(answer), segments_planned=planned))
            if made is not None:
                async with aclosing(self._segments_of(made, found)) as segments:
                    async for segment in segments:
                        count += 1
                        frames += segment.encoded_frames
                        self.parts.metrics.frames.inc(segment.encoded_frames)
                        yield _event("segment", _segment_answer(self._options, segment))
        done = ClassifyDone(
            id=answer.id,
            segments=count,
            usage=answer.usage.model_copy(update={"frames": frames}),
            timings_ms=answer.timings_ms | self._segment_time(found),
        )
        yield _event("done", done)

    @asynccontextmanager
    async def _kept(self, found: Classification) -> AsyncIterator[None]:
        """Keep the weights that `found` is of until its segments are, whatever is served then."""
        if self._segments is None:
            yield
            return
        async with self.parts.tagger.videos.weights(found.space.clip_weight):
            yield

    async def _whole(self) -> Classification:
        options = self._options
        chosen = options.sampling or SamplingOptions()
        found = await self.parts.tagger.classify(
            self._video.path,
            labels=[query(label) for label in options.labels],
            scores=options.scores,
            top_k=options.top_k,
            threshold=options.threshold,
            templates=options.templates,
            template_set=options.template_set,
            clip_weight=options.clip_weight,
            sampling=self._sampling,
            start=chosen.start,
            end=chosen.end,
            deadline=self._deadline,
        )
        stages = self.request.state.stages
        for name, taken in found.timings_seconds.items():
            if name != "total":
                stages[name] = stages.get(name, 0.0) + taken
        _count(self.parts, options, found)
        return found

    async def _plan(self) -> SegmentPlan | None:
        if self._segments is None:
            return None
        chosen = self._options.sampling or SamplingOptions()
        return await self.parts.tagger.segments.plan(
            self._video.path,
            cutting=self._segments.cutting,
            sampling=self._sampling,
            start=chosen.start,
            end=chosen.end,
            deadline=self._deadline,
        )

    def _segments_of(
        self, made: SegmentPlan, found: Classification
    ) -> AsyncGenerator[TaggedSegment, None]:
        assert self._segments is not None  # noqa: S101 - or there would be no plan
        return self.parts.tagger.segments.tag(
            self._video.path,
            made,
            labels=self._segments.labels,
            whole=found,
            merge=self._segments.merge,
            deadline=self._deadline,
        )

    def _require_room(self, tags: int) -> None:
        require_room(tags, limit=self.parts.settings.max_segment_tags)

    @property
    def _keeps_all(self) -> bool:
        """Whether each segment surely has as many tags as `top_k` lets through."""
        return self._segments is not None and self._segments.labels.min_score is None

    @property
    def _sampling(self) -> Sampling | None:
        chosen = self._options.sampling or SamplingOptions()
        return sampling_of(chosen, frames=self.parts.tagger.manifest.frames_per_clip)

    def _segment_time(self, found: Classification) -> dict[str, float]:
        total = time.monotonic() - self._began
        segments = total - found.timings_seconds["total"]
        return {"segments": round(segments * 1000, 2), "total": round(total * 1000, 2)}


def timeline(
    options: ClassifyRequest,
    whole: Classification,
    segments: Sequence[TaggedSegment],
    *,
    sha256: str,
) -> dict[str, Any]:
    """Return the whole answer about a long video, as JSON holds it."""
    answer = _answer(options, whole, sha256=sha256)
    answer.segments = [_segment_answer(options, segment) for segment in segments]
    answer.usage.frames += sum(segment.encoded_frames for segment in segments)
    found: dict[str, Any] = answer.model_dump(mode="json", by_alias=True)
    return found


def _segment_answer(options: ClassifyRequest, segment: TaggedSegment) -> SegmentAnswer:
    return SegmentAnswer(
        start=round(segment.start, 6),
        end=round(segment.end, 6),
        tags=tag_answers(segment.tags),
        none_score=segment.none_score if options.allow_none else None,
        warnings=warned(segment.warnings),
        merged=segment.merged,
    )


def _event(name: str, shape: ClassifyMeta | SegmentAnswer | ClassifyDone) -> Event:
    return Event(name, shape.model_dump_json(by_alias=True).encode())


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
        tags=tag_answers(found.tags),
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
