"""The job that tags a long video over time; each segment is written down as it is done."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, Protocol

from service.asked import Segments, query, require_room, sampling_of, segments_of
from service.errors import ApiError
from service.fetch import Fetcher
from service.jobs.evaluation_tools import EvaluationTools, Lend
from service.jobs.job import Json
from service.jobs.running import RunningJob
from service.jobs.segment_pieces import packed, unpacked
from service.jobs.standing_back import stand_back
from service.media.library import MediaLibrary
from service.results import Classification, TaggedSegment
from service.schemas import ClassifyRequest, SamplingOptions, SegmentOptions
from service.segments import Span
from service.spool import SpoolFile
from service.timeline_merging import merged
from service.timeline_plan import SegmentPlan

KIND: Final = "classify_long"
FILE: Final = "video"
"""In the folder of a job: the video that was sent, or that was fetched to its end."""

_WHOLE: Final = "whole"
_SPANS: Final = "spans"
_SLICE_SECONDS: Final = 20.0
"""So long the weights are held in one go; somebody may wait to build others."""


class LongPlan(ClassifyRequest):
    """What a job of kind `KIND` does; its request.

    Attributes:
        source: where the video is: in the folder of the job, at a URL, or in the store of videos.
        where: the URL, or the id of a video of the index.
        sha256: of its bytes; None: not known before they were fetched.
    """

    segments: SegmentOptions
    source: Literal["upload", "url", "video_id"]
    where: str | None = None
    sha256: str | None = None


class Shape(Protocol):
    """Makes the answer of what was found; as JSON holds it."""

    def __call__(
        self,
        options: ClassifyRequest,
        whole: Classification,
        segments: Sequence[TaggedSegment],
        *,
        sha256: str,
    ) -> Json:
        """Return it."""
        ...


class LongClassification:
    """Handler of the jobs of kind `KIND`.

    Args:
        lend: see `Lend`.
        media: where videos are kept; None: nowhere.
        fetcher: of URLs.
        shape: makes the result.
        segment_seconds: length of windows, where the request does not say it.
        max_bytes: of a video that is fetched.
        max_tags: of all segments together.
    """

    def __init__(
        self,
        lend: Lend,
        *,
        media: MediaLibrary | None,
        fetcher: Fetcher,
        shape: Shape,
        segment_seconds: float,
        max_bytes: int,
        max_tags: int,
    ) -> None:
        self._lend = lend
        self._media = media
        self._fetcher = fetcher
        self._shape = shape
        self._segment_seconds = segment_seconds
        self._max_bytes = max_bytes
        self._max_tags = max_tags

    async def run(self, job: RunningJob) -> Json:
        """Tag the segments that earlier attempts have not, and return the answer for all.

        Raises:
            ApiError: ``model_changed``, ``job_interrupted``, ``too_many_segments``, or the bytes
                of the video cannot be had.
            OptionError, LabelError, VideoError: the fault of the request or the video.
            EncoderError, IndexUnavailableError: as their origins say.
        """
        plan = LongPlan.model_validate(job.request)
        asked = segments_of(plan, default_length=self._segment_seconds)
        assert asked is not None  # noqa: S101 - such plans have segments
        pieces = dict(await job.pieces())
        async with self._bytes(job, plan) as (path, sha256), self._lend() as tools:
            before = pieces.get(_WHOLE)
            _require_same(before, sha256=sha256, tools=tools)
            await stand_back(tools)
            weight = plan.clip_weight if before is None else before["clip_weight"]
            whole = await _classify(plan, path, tools, clip_weight=weight)
            if before is None:
                space = whole.space
                served = {"model": _name(tools), "clip_weight": space.clip_weight}
                await job.save(_WHOLE, {**served, "sha256": sha256})
            attempt = _Attempt(job, tools, asked, whole, path, max_tags=self._max_tags)
            segments = await attempt.run(plan, pieces)
        if asked.merge:
            segments = [segment async for segment in merged(_each(segments))]
        return self._shape(plan, whole, segments, sha256=sha256)

    @asynccontextmanager
    async def _bytes(self, job: RunningJob, plan: LongPlan) -> AsyncIterator[tuple[Path, str]]:
        """Lend the video and the digest of its bytes."""
        if plan.source == "video_id":
            if self._media is None or plan.sha256 is None:
                raise ApiError("media_not_kept", "This service does not keep videos.")
            async with self._media.local(plan.sha256) as path:
                yield path, plan.sha256
            return
        path = job.folder / FILE
        if not await asyncio.to_thread(path.is_file):
            if plan.source == "upload" or plan.where is None:
                raise ApiError("job_interrupted", "The video of this job is gone; send it again.")
            await self._fetch(plan.where, path)
        sha256 = plan.sha256
        yield path, await asyncio.to_thread(_digest, path) if sha256 is None else sha256

    async def _fetch(self, url: str, path: Path) -> None:
        await asyncio.to_thread(path.parent.mkdir, mode=0o700, exist_ok=True)
        part = path.with_name(f"{FILE}.part")
        part.unlink(missing_ok=True)
        file = SpoolFile(part, max_bytes=self._max_bytes)
        try:
            await self._fetcher.fetch(url, file, param="video.url")
        finally:
            file.close()
        await asyncio.to_thread(part.rename, path)


class _Attempt:
    """One run over one video."""

    def __init__(
        self,
        job: RunningJob,
        tools: EvaluationTools,
        asked: Segments,
        whole: Classification,
        path: Path,
        *,
        max_tags: int,
    ) -> None:
        self._job = job
        self._tools = tools
        self._asked = asked
        self._whole = whole
        self._path = path
        self._max_tags = max_tags
        self._tags = 0

    async def run(self, plan: LongPlan, pieces: dict[str, Json]) -> list[TaggedSegment]:
        """Return all segments, those of earlier attempts first."""
        chosen = plan.sampling or SamplingOptions()
        frames = self._tools.encoder.manifest.frames_per_clip
        made = await self._tools.tagger.segments.plan(
            self._path,
            cutting=self._asked.cutting,
            sampling=sampling_of(chosen, frames=frames),
            start=chosen.start,
            end=chosen.end,
        )
        spans = await self._spans(made, pieces)
        done: list[TaggedSegment] = []
        while (piece := pieces.get(str(len(done)))) is not None:
            self._keep(done, unpacked(piece))
        self._tell(done, spans)
        while len(done) < len(spans):
            await stand_back(self._tools)
            await self._slice(made, spans, done)
        return done

    async def _spans(self, made: SegmentPlan, pieces: dict[str, Json]) -> list[Span]:
        """Return where the segments begin and end; shots are looked for once."""
        found = pieces.get(_SPANS)
        if found is None:
            spans = await self._tools.tagger.segments.cut(self._path, made)
            await self._job.save(_SPANS, {"spans": spans})
            return spans
        return [(start, end) for start, end in found["spans"]]

    async def _slice(
        self, made: SegmentPlan, spans: Sequence[Span], done: list[TaggedSegment]
    ) -> None:
        """Tag a few segments more, one at least."""
        tagger = self._tools.tagger
        until = time.monotonic() + _SLICE_SECONDS
        async with tagger.videos.weights(self._whole.space.clip_weight):
            left = replace(made, chosen=tuple(spans[len(done) :]))
            tagged = tagger.segments.tag(
                self._path, left, labels=self._asked.labels, whole=self._whole, merge=False
            )
            async with aclosing(tagged) as segments:
                async for segment in segments:
                    await self._job.save(str(len(done)), packed(segment))
                    self._keep(done, segment)
                    self._tell(done, spans)
                    if time.monotonic() > until:
                        return
                    await stand_back(self._tools)

    def _keep(self, done: list[TaggedSegment], segment: TaggedSegment) -> None:
        self._tags += len(segment.tags)
        require_room(self._tags, limit=self._max_tags)
        done.append(segment)

    def _tell(self, done: Sequence[TaggedSegment], spans: Sequence[Span]) -> None:
        # One unit for the video as a whole: only a job that has ended is done.
        self._job.report("classifying", done=len(done), total=len(spans) + 1)


async def _classify(
    plan: LongPlan, path: Path, tools: EvaluationTools, *, clip_weight: float | None
) -> Classification:
    """Tag the video as a whole."""
    chosen = plan.sampling or SamplingOptions()
    return await tools.tagger.classify(
        path,
        labels=[query(label) for label in plan.labels],
        scores=plan.scores,
        top_k=plan.top_k,
        threshold=plan.threshold,
        templates=plan.templates,
        template_set=plan.template_set,
        clip_weight=clip_weight,
        sampling=sampling_of(chosen, frames=tools.encoder.manifest.frames_per_clip),
        start=chosen.start,
        end=chosen.end,
    )


def _require_same(before: Json | None, *, sha256: str, tools: EvaluationTools) -> None:
    """Refuse to go on with another model, or other bytes, than an earlier attempt had."""
    if before is None:
        return
    if before["model"] != _name(tools):
        raise ApiError(
            "model_changed",
            f"The job was begun with {before['model']}, {_name(tools)} is served now; send it"
            " again.",
            limit=_name(tools),
            actual=before["model"],
        )
    if before["sha256"] != sha256:
        raise ApiError("fetch_failed", "The URL gives other bytes than before.", param="video.url")


def _name(tools: EvaluationTools) -> str:
    manifest = tools.encoder.manifest
    return f"{manifest.name}@{manifest.revision}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _each(segments: Sequence[TaggedSegment]) -> AsyncGenerator[TaggedSegment, None]:
    for segment in segments:
        yield segment
