"""Neighbouring segments that say the same become one; pure, and as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from service.results import TaggedSegment
from service.tags import Tag


async def merged(
    segments: AsyncGenerator[TaggedSegment, None],
) -> AsyncGenerator[TaggedSegment, None]:
    """Join runs of segments that keep the same labels, whatever their order and scores.

    A segment is handed on when the next one differs, so one is held back at a time. `segments` is
    closed with this generator.
    """
    run: list[TaggedSegment] = []
    async with aclosing(segments) as source:
        async for segment in source:
            if run and _names(run[0]) != _names(segment):
                yield join(run)
                run = []
            run.append(segment)
    if run:
        yield join(run)


def join(run: Sequence[TaggedSegment]) -> TaggedSegment:
    """Make one segment of neighbours that keep the same labels.

    Scores, logits and cosines are means, each segment weighing as much as it is long. Warnings are
    those of all, each once.
    """
    first, last = run[0], run[-1]
    if len(run) == 1:
        return first
    shares = [segment.end - segment.start for segment in run]
    by_name = [{_name(tag): tag for tag in segment.tags} for segment in run]
    means = [_mean([tags[name] for tags in by_name], shares) for name in by_name[0]]
    nothing = [s.none_score for s in run if s.none_score is not None]
    return TaggedSegment(
        start=first.start,
        end=last.end,
        tags=tuple(sorted(means, key=lambda tag: (-tag.score, -tag.logit))),
        none_score=_weighted(nothing, shares) if nothing else None,
        warnings=tuple(dict.fromkeys(w for segment in run for w in segment.warnings)),
        encoded_frames=sum(segment.encoded_frames for segment in run),
        merged=len(run),
    )


def _mean(tags: Sequence[Tag], shares: Sequence[float]) -> Tag:
    return tags[0]._replace(
        score=_weighted([tag.score for tag in tags], shares),
        logit=_weighted([tag.logit for tag in tags], shares),
        cosine=_weighted([tag.cosine for tag in tags], shares),
    )


def _weighted(values: Sequence[float], shares: Sequence[float]) -> float:
    return sum(v * share for v, share in zip(values, shares, strict=True)) / sum(shares)


def _name(tag: Tag) -> tuple[str, str | None]:
    return tag.label, tag.label_id


def _names(segment: TaggedSegment) -> frozenset[tuple[str, str | None]]:
    return frozenset(map(_name, segment.tags))
