"""``POST /search``: find moments of indexed videos by text, picture, video or vector."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import APIRouter, Request

from service.errors import ApiError
from service.index.collection import CollectionMissingError
from service.index.video_index import Hit, Space, SpaceContent
from service.index.wish import Wish
from service.routes.answers import index_space, seconds_allowed, spaces_there, warned
from service.routes.client import attended
from service.routes.documents import search_request
from service.routes.parts import Parts, Ready
from service.routes.search_body import media_of, search_body
from service.routes.search_cursor import cursor_behind, read_cursor
from service.routes.search_filter import index_filter
from service.routes.search_query import QueryMaker, videos_without
from service.routes.search_shapes import SearchRequest
from service.routes.shapes import HitAnswer, IndexAnswer, Moment, SearchAnswer
from service.routes.thumbnails import pictured
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["search"])


@router.post("/search", summary="Find moments of indexed videos", openapi_extra=search_request())
async def search(request: Request, parts: Ready) -> SearchAnswer:
    """The nearest segments by cosine, in one embedding space; ``score`` is the cosine.

    The query is a text, an embedding, a video of the index, a picture, a video, or several of
    these together: the weighted sum of what is wanted less the weighted sum of what is ``not``.

    Vectors of another lambda or model are never compared: 409 names the spaces that are there.
    """
    began = time.perf_counter()
    async with search_body(request, parts) as (options, files):
        seconds = seconds_allowed(request, None, parts)
        query = options.query
        is_text = isinstance(query, str) or not media_of(query) or options.cursor is not None
        with parts.admission.enter("text" if is_text else "video", seconds=seconds):
            found = await attended(
                request,
                _search(parts, options, files, deadline=time.monotonic() + seconds),
                seconds=seconds,
            )
    took = time.perf_counter() - began
    request.state.stages["search"] = took
    space = found.content.space
    return SearchAnswer(
        data=await pictured(
            parts, [_hit(hit, group_by_video=options.group_by == "video") for hit in found.hits]
        ),
        next_cursor=found.next_cursor,
        index=IndexAnswer(
            id=options.collection,
            model=space.name,
            clip_weight=space.clip_weight,
            space=space.id,
            videos=found.content.videos,
            segments=found.content.segments,
        ),
        warnings=warned(found.warnings),
        took_ms=round(took * 1000, 2),
    )


@dataclass(frozen=True)
class _Found:
    """One page of hits, and what was searched for them."""

    hits: list[Hit]
    next_cursor: str | None
    content: SpaceContent
    warnings: tuple[VideoWarning, ...]


async def _search(
    parts: Parts, options: SearchRequest, files: Mapping[str, Path], *, deadline: float
) -> _Found:
    cursor = read_cursor(options)
    contents = await _contents(parts, options.collection)
    asked = None if options.clip_weight is None else round(options.clip_weight, 4)
    space = next((each.space for each in contents if each.active), None)
    if asked is not None:  # name a missing space before anything is encoded for it
        space = replace(index_space(parts.tagger.space, parts), clip_weight=asked)
        _content(contents, space)
    warnings: tuple[VideoWarning, ...] = ()
    if cursor is None:
        made = await QueryMaker(parts, options, files, space, deadline).make()
        vector, space, warnings = made.vector, made.space, made.warnings
        content = _content(contents, space)
    else:
        vector = cursor.vector
        content = _content(contents, space or index_space(parts.tagger.space, parts))
        space = content.space
        if (cursor.space, len(vector)) != (space.id, space.dimensions):
            raise ApiError(
                "invalid_cursor",
                f"The cursor is of another embedding space; {space.id} is searched now.",
                param="cursor",
            )
    seen = 0 if cursor is None else cursor.after.seen
    hits = await parts.index.search(
        vector,
        space=space,
        wish=Wish(
            options.top_k + 1,  # one more tells whether there are more
            options.group_by,
            options.per_video,
            -1.0 if options.min_score is None else options.min_score,
            wanted=replace(index_filter(options.filter), without=videos_without(options.query)),
            after=None if cursor is None else cursor.after,
        ),
        collection=options.collection,
    )
    page = list(hits[: options.top_k])
    following = None
    if len(hits) > len(page):
        following = cursor_behind(
            page[-1], options=options, space=space.id, vector=vector, seen=seen + len(page)
        ).text()
    return _Found(page, following, content, (*warnings, *_elsewhere(contents, content)))


def _elsewhere(there: Sequence[SpaceContent], searched: SpaceContent) -> Sequence[VideoWarning]:
    """Warn of videos that only other spaces hold, as after a change of model or lambda.

    By the figures that are at hand: who is where would have to be looked up video by video.
    """
    missing = max((content.videos for content in there), default=0) - searched.videos
    if missing <= 0:
        return ()
    detail = (
        f"At least {missing} videos of the collection are not in {searched.space.id}, and were"
        " not searched: reindex the collection."
    )
    return (VideoWarning("videos_in_other_spaces", detail),)


async def _contents(parts: Parts, collection: str) -> Sequence[SpaceContent]:
    """Return the spaces that hold vectors of a collection.

    Raises:
        CollectionMissingError: there is no such collection.
    """
    there = await parts.index.spaces(collection=collection)
    if not there and await parts.index.collection(collection) is None:
        raise CollectionMissingError(collection)
    return there


def _way_out(there: Sequence[SpaceContent], wanted: Space) -> str:
    """Say what can be done about a space in which nothing is indexed."""
    model = wanted.id.rpartition("/")[0]
    models = sorted({content.space.id.rpartition("/")[0] for content in there})
    if model in models:
        return "Reindex the collection, or search with a lambda that is there."
    return f"Reindex the collection, or activate {' or '.join(models)}."


def _content(there: Sequence[SpaceContent], wanted: Space) -> SpaceContent:
    """Return what a collection holds in the wanted space.

    Raises:
        ApiError: ``index_lambda_mismatch`` if it holds vectors, but none of this space.
    """
    for content in there:
        if content.space.id == wanted.id:
            return content
    if not there:
        return SpaceContent(wanted, 0, 0)
    raise ApiError(
        "index_lambda_mismatch",
        f"Nothing is indexed in {wanted.id}; vectors of different weights are not comparable."
        f" {_way_out(there, wanted)}",
        param="lambda",
        actual=wanted.clip_weight,
        extra={"wanted": wanted.id, "spaces": spaces_there(there)},
    )


def _hit(hit: Hit, *, group_by_video: bool) -> HitAnswer:
    moments = [
        Moment(
            start=part.start_seconds, end=part.end_seconds, score=part.cosine, cosine=part.cosine
        )
        for part in hit.segments
    ]
    best = moments[0]
    return HitAnswer(
        video_id=hit.video_id,
        external_id=hit.external_id,
        metadata=dict(hit.metadata),
        start=best.start,
        end=best.end,
        score=best.score,
        cosine=best.cosine,
        segments=moments if group_by_video else None,
    )
