"""Tags over time: the segments of a video, each with scored labels, as they are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from service.deadline import until
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.label_encoder import LabelEncoder
from service.labels import LabelLimits, LabelQuery, choose_templates, normalise_queries
from service.options import choose_sampling
from service.results import Classification, TaggedSegment
from service.scoring import ScoreKind
from service.segments import Cutting, Span
from service.tags import encode_labels, keep, score_tags
from service.timeline_encoder import TimelineEncoder
from service.timeline_merging import merged
from service.timeline_plan import SegmentPlan, SegmentPlanner
from service.videoclip.manifest import Sampling


@dataclass(frozen=True)
class SegmentLabels:
    """What the segments of a video are scored against; the same as the video as a whole.

    Attributes:
        labels: what may be in them.
        scores: kind of score, see `service.scoring`.
        templates: own prompt templates, each with one `{}`.
        template_set: or the name of a set; neither: the artefact's.
        top_k: most tags of a segment.
        min_score: least score of a tag.
    """

    labels: Sequence[LabelQuery]
    scores: ScoreKind = "softmax"
    templates: Sequence[str] | None = None
    template_set: str | None = None
    top_k: int | None = None
    min_score: float | None = None


class TimelineTagger:
    """Cuts videos, encodes the segments and scores them.

    Args:
        encoder: runs the artefact; started.
        decoder: decodes; started.
        slots: where pixels go between the two.
        labels: texts to vectors.
        limits: of labels and templates.
        background: labels that independent scores compare with.
        max_segments: most segments of one video.
    """

    def __init__(
        self,
        encoder: EncoderProcess,
        *,
        decoder: DecodePool,
        slots: FrameSlots,
        labels: LabelEncoder,
        limits: LabelLimits,
        background: Sequence[str],
        max_segments: int,
    ) -> None:
        self._encoder = encoder
        self._labels = labels
        self._limits = limits
        self._background = background
        self._planner = SegmentPlanner(decoder, max_segments=max_segments)
        self._segments = TimelineEncoder(
            encoder, decoder=decoder, slots=slots, planner=self._planner
        )

    async def plan(
        self,
        path: Path,
        *,
        cutting: Cutting,
        sampling: Sampling | None = None,
        start: float | None = None,
        end: float | None = None,
        deadline: float | None = None,
    ) -> SegmentPlan:
        """Look at a video and say what will be made of it; see `SegmentPlanner.plan`.

        Args:
            sampling: which frames of a segment; None: the artefact's.
        """
        return await self._planner.plan(
            path,
            cutting=cutting,
            sampling=choose_sampling(sampling, manifest=self._encoder.manifest),
            start=start,
            end=end,
            deadline=deadline,
        )

    async def cut(self, path: Path, made: SegmentPlan) -> list[Span]:
        """Return all segments of a video, start and end in seconds.

        Raises:
            OptionError, VideoError: as `SegmentPlanner.spans`.
        """
        return [span async for spans in self._planner.spans(path, made) for span in spans]

    async def tag(
        self,
        path: Path,
        made: SegmentPlan,
        *,
        labels: SegmentLabels,
        whole: Classification,
        merge: bool,
        deadline: float | None = None,
    ) -> AsyncGenerator[TaggedSegment, None]:
        """Yield the segments in order, all of the λ that `whole` is of.

        Args:
            path: a local file.
            made: what was planned for it.
            labels: what they are scored against.
            whole: the answer for the video; warnings that it has already are not repeated.
            merge: join neighbours that keep the same labels.
            deadline: `time.monotonic()` at which it is worthless.

        Raises:
            as `TimelineEncoder.encode`, and as `LabelEncoder.encode`.
        """
        made_segments = self._tag(path, made, labels=labels, whole=whole, deadline=deadline)
        async with aclosing(merged(made_segments) if merge else made_segments) as segments:
            async for segment in segments:
                yield segment

    async def _tag(
        self,
        path: Path,
        made: SegmentPlan,
        *,
        labels: SegmentLabels,
        whole: Classification,
        deadline: float | None,
    ) -> AsyncGenerator[TaggedSegment, None]:
        weight = whole.space.clip_weight
        queries = normalise_queries(labels.labels, limits=self._limits)
        async with until(deadline):
            vectors = await encode_labels(
                self._labels,
                labels=queries,
                background=self._background if labels.scores == "independent" else None,
                templates=choose_templates(
                    templates=labels.templates,
                    template_set=labels.template_set,
                    default_set=self._encoder.manifest.template_set,
                    limits=self._limits,
                ),
                clip_weight=weight,
                deadline=deadline,
            )
        fitted = self._encoder.manifest.calibration
        calibration = None if fitted is None else fitted.at(weight)
        known = set(whole.warnings)
        encoded = self._segments.encode(path, made, clip_weight=weight, deadline=deadline)
        async with aclosing(encoded) as segments:
            async for segment in segments:
                tags, nothing = score_tags(
                    segment.pooled,
                    labels=queries,
                    vectors=vectors,
                    scores=labels.scores,
                    logit_scale=whole.logit_scale,
                    calibration=calibration,
                )
                yield TaggedSegment(
                    start=segment.start,
                    end=segment.end,
                    tags=keep(tags, top_k=labels.top_k, threshold=labels.min_score),
                    none_score=nothing,
                    warnings=tuple(w for w in segment.warnings if w not in known),
                    encoded_frames=segment.encoded_frames,
                )
