"""``POST /search``: find moments of indexed videos by text or by a vector."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request

from service.encode.space import EmbeddingSpace
from service.errors import ApiError
from service.index.video_index import Hit, Space, SpaceContent
from service.routes.answers import index_space, seconds_allowed, warned
from service.routes.body import json_body
from service.routes.client import attended
from service.routes.documents import json_request
from service.routes.parts import Parts, Ready
from service.routes.shapes import HitAnswer, IndexAnswer, Moment, SearchAnswer
from service.schemas import Query, SearchRequest
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["search"])

_COUNT_AGE_SECONDS = 5.0


@router.post(
    "/search", summary="Find moments of indexed videos", openapi_extra=json_request(SearchRequest)
)
async def search(request: Request, parts: Ready) -> SearchAnswer:
    """The nearest segments by cosine, in one embedding space; ``score`` is the cosine.

    Vectors of another lambda or model are never compared: 409 names the spaces that are there.
    """
    began = time.perf_counter()
    options = await json_body(request, parts, SearchRequest)
    seconds = seconds_allowed(None, parts)
    with parts.admission.enter("text"):
        hits, content, warnings = await attended(
            request,
            _search(parts, options, deadline=time.monotonic() + seconds),
            seconds=seconds,
        )
    took = time.perf_counter() - began
    request.state.stages["search"] = took
    space = content.space
    return SearchAnswer(
        data=[_hit(hit, group_by_video=options.group_by == "video") for hit in hits],
        index=IndexAnswer(
            model=space.name,
            clip_weight=space.clip_weight,
            space=space.id,
            videos=content.videos,
            segments=content.segments,
        ),
        warnings=warned(warnings),
        took_ms=round(took * 1000, 2),
    )


async def _search(
    parts: Parts, options: SearchRequest, *, deadline: float
) -> tuple[list[Hit], SpaceContent, tuple[VideoWarning, ...]]:
    query = Query(text=options.query) if isinstance(options.query, str) else options.query
    asked = None if options.clip_weight is None else round(options.clip_weight, 4)
    warnings: tuple[VideoWarning, ...] = ()
    if asked is not None:  # name a missing space before anything is encoded for it
        await _content(parts, _space(parts, parts.tagger.space, asked))
    if query.text is None:
        space = _space(parts, parts.tagger.space, asked)
        vector = _given(query, space)
    else:
        texts = await parts.tagger.embed_texts(
            [query.text],
            templates=options.templates,
            # A frozen text tower gives the same vector for every lambda.
            clip_weight=asked if parts.tagger.manifest.text_tower_tuned else None,
            deadline=deadline,
        )
        space = _space(parts, texts.space, asked)
        vector, warnings = texts.vectors[0], texts.warnings
    content = await _content(parts, space)
    hits = await parts.index.search(
        vector,
        space=space,
        top_k=options.top_k,
        group_by=options.group_by,
        per_video=options.per_video,
        min_cosine=-1.0 if options.min_score is None else options.min_score,
    )
    return list(hits), content, warnings


def _space(parts: Parts, found: EmbeddingSpace, clip_weight: float | None) -> Space:
    space = index_space(found, parts)
    return space if clip_weight is None else replace(space, clip_weight=clip_weight)


async def _content(parts: Parts, wanted: Space) -> SpaceContent:
    """Return what the index holds in the wanted space.

    Raises:
        ApiError: ``index_lambda_mismatch`` if it holds vectors, but none of this space.
    """
    there: Sequence[SpaceContent] = ()
    for age_seconds in (_COUNT_AGE_SECONDS, 0.0):  # a refusal is never from memory
        there = await parts.index.spaces(max_age_seconds=age_seconds)
        for content in there:
            if content.space.id == wanted.id:
                return content
    if not there:
        return SpaceContent(wanted, 0, 0)
    raise ApiError(
        "index_lambda_mismatch",
        f"Nothing is indexed in {wanted.id}; vectors of different weights are not comparable."
        " Index the videos again, or search with a lambda that is there.",
        param="lambda",
        actual=wanted.clip_weight,
        extra={
            "wanted": wanted.id,
            "spaces": [
                {
                    "id": content.space.id,
                    "model": content.space.name,
                    "revision": content.space.revision,
                    "lambda": content.space.clip_weight,
                    "videos": content.videos,
                }
                for content in there
            ],
        },
    )


def _given(query: Query, space: Space) -> npt.NDArray[np.float32]:
    vector = np.asarray(query.embedding, np.float32)
    if len(vector) != space.dimensions:
        raise ApiError(
            "invalid_embedding",
            f"The embedding has {len(vector)} numbers, this space has {space.dimensions}.",
            param="query.embedding",
            limit=space.dimensions,
            actual=len(vector),
        )
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise ApiError(
            "invalid_embedding", "The embedding has no direction.", param="query.embedding"
        )
    return vector / np.float32(length)


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
