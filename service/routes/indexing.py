"""From the bytes of a video to segments of the index, where searches of its collection look."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from service.errors import ApiError
from service.index.space import Space
from service.index.video_index import NewSegment, NewVideo, StoredVideo
from service.routes.answers import index_space
from service.routes.media import keeping
from service.routes.parts import Parts
from service.schemas import IndexRequest
from service.spool import SpoolFile
from service.videoclip.errors import VideoWarning

_MOVES: Final = 5
"""How often a collection may be switched under one request."""

Indexed = tuple[StoredVideo, bool, tuple[VideoWarning, ...]]


async def index_video_bytes(
    parts: Parts, options: IndexRequest, video: SpoolFile, *, deadline: float
) -> Indexed:
    """Write a video in the space that is asked for, else in the one that its collection is in.

    A switch to another space looks for videos that lack it; one that comes between our look and
    our writing would miss this video. So we look again afterwards, and write it there, too.

    Returns:
        The video, whether it is new, and what the client should know.

    Raises:
        ApiError: ``encoder_unavailable``: what is searched now is of another artefact than the
            one that this request has; or the collection was switched again and again.
        CollectionMissingError: there is no such collection.
    """
    active, space = await _where(parts, options)
    stored, is_new, warnings = await _write(parts, options, video, space, deadline=deadline)
    for _ in range(_MOVES):
        if options.clip_weight is not None:
            break
        now, wanted = await _where(parts, options)
        if now is not None and now != active and now.id not in stored.spaces:
            wanted = now
        if wanted.id in stored.spaces:
            break
        if not _is_ours(wanted, parts):
            raise _moved()
        active = now
        stored, _, _ = await _write(parts, options, video, wanted, deadline=deadline)
    else:
        if active is not None:  # else it follows what is served, and that changes all the time
            raise _moved()
    return stored, is_new, warnings


def _moved() -> ApiError:
    return ApiError(
        "encoder_unavailable",
        "The collection was switched to another space meanwhile; send the video again.",
        retry_after_seconds=1,
    )


async def _where(parts: Parts, options: IndexRequest) -> tuple[Space | None, Space]:
    """Return the active space of the collection, and the one that this request writes in."""
    active = await parts.index.active_space(options.collection)
    served = index_space(parts.tagger.space, parts)
    if options.clip_weight is not None:
        weight = parts.tagger.videos.weight(options.clip_weight)
        return active, replace(served, clip_weight=weight)
    # Vectors of an artefact that is not here cannot be made: those of the served one can.
    return active, active if active is not None and _is_ours(active, parts) else served


def _is_ours(space: Space, parts: Parts) -> bool:
    served = parts.tagger.space
    return (space.name, space.revision) == (served.name, served.revision)


async def _write(
    parts: Parts, options: IndexRequest, video: SpoolFile, space: Space, *, deadline: float
) -> Indexed:
    known = await parts.index.find(video.sha256, collection=options.collection)
    if known is not None and space.id in known.spaces:
        async with keeping(parts, video):
            changed = await parts.index.update(
                known.id, external_id=options.external_id, metadata=options.metadata
            )
        if changed is not None:
            return changed, False, _not_cut_again(options)
    cut = await parts.tagger.videos.embed_segments(
        video.path,
        clip_weight=space.clip_weight,
        segment_seconds=options.segments.length or parts.settings.segment_seconds,
        deadline=deadline,
    )
    facts = NewVideo(
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        external_id=options.external_id,
        metadata=options.metadata,
        duration_seconds=cut.info.duration_seconds,
        fps=cut.info.fps,
        width=cut.info.width,
        height=cut.info.height,
        codec=cut.info.codec,
        collection=options.collection,
    )
    async with keeping(parts, video):
        stored, is_new = await parts.index.add(
            facts,
            space=index_space(cut.space, parts),
            segments=[NewSegment(part.start, part.end, part.vector) for part in cut.segments],
        )
    return stored, is_new, cut.warnings


def _not_cut_again(options: IndexRequest) -> tuple[VideoWarning, ...]:
    if options.segments.length is None:
        return ()
    detail = (
        "The video was indexed before and keeps its segments; segments.length had no effect."
        " Delete the video first to cut it anew."
    )
    return (VideoWarning("already_indexed", detail),)
