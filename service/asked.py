"""What the options of a request ask for, in the words of the core."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ApiError
from service.labels import LabelQuery
from service.options import OptionError
from service.schemas import ClassifyRequest, Label, SamplingOptions
from service.segments import Cutting, choose_cutting
from service.timeline_tagger import SegmentLabels
from service.videoclip.manifest import Sampling

_OPEN_VCLIP_VIEWS = 3


@dataclass(frozen=True)
class Segments:
    """What a request asks for beside the tags of the whole video."""

    cutting: Cutting
    labels: SegmentLabels
    merge: bool


def segments_of(options: ClassifyRequest, *, default_length: float) -> Segments | None:
    """The segments that options ask for.

    Args:
        options: of the request.
        default_length: seconds of a window, where they do not say it.

    Raises:
        OptionError: they contradict each other.
    """
    asked = options.segments
    if asked is None:
        return None
    cutting = choose_cutting(
        "shots" if asked.mode == "shots" else "windows",
        length=asked.length,
        overlap=asked.overlap,
        default_length=default_length,
    )
    labels = SegmentLabels(
        labels=[query(label) for label in options.labels],
        scores=options.scores,
        templates=options.templates,
        template_set=options.template_set,
        top_k=options.top_k,
        min_score=options.threshold if asked.min_score is None else asked.min_score,
    )
    if asked.merge and labels.top_k is None and labels.min_score is None:
        raise OptionError(
            "invalid_segments",
            "Without top_k, threshold or segments.min_score every segment keeps all labels, and"
            " merging would make one of them.",
            param="segments.merge",
            limit=None,
            actual=True,
        )
    return Segments(cutting, labels, asked.merge)


def require_room(tags: int, *, limit: int) -> None:
    """Refuse more tags of segments than one answer may hold.

    Raises:
        ApiError: ``too_many_segments``.
    """
    if tags > limit:
        raise ApiError(
            "too_many_segments",
            f"The segments have {tags} tags or more, one answer holds {limit}; keep fewer with"
            " top_k or segments.min_score, or ask for a stream of events.",
            param="segments",
            limit=limit,
            actual=tags,
        )


def query(label: str | Label) -> LabelQuery:
    """A label with its texts."""
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
