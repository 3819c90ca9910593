"""``/lambda``: which share of the original CLIP is served, and what was measured about it."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from service.encode.space import EmbeddingSpace
from service.errors import ApiError
from service.index.video_index import IndexUnavailableError
from service.routes.answers import require_model, warned
from service.routes.body import json_body
from service.routes.documents import json_request
from service.routes.parts import Parts, Ready
from service.schemas import LambdaRequest
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["lambda"])

logger = logging.getLogger("vtag")

_COUNT_AGE_SECONDS = 5.0


@router.get("/lambda", summary="The lambda that is served, and its measured curve")
async def get_lambda(response: Response, parts: Ready) -> dict[str, Any]:
    """1 is CLIP itself, 0 the tuned weights; ``metrics`` is the trade-off measured in training."""
    response.headers["ETag"] = _etag(parts.tagger.space)
    return await _state(parts)


@router.put("/lambda", summary="Serve another lambda", openapi_extra=json_request(LambdaRequest))
async def put_lambda(
    request: Request,
    response: Response,
    parts: Ready,
    if_match: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Build the weights beside the old ones, check them, swap; requests go on meanwhile.

    The choice is kept for the next start; if the disk refuses it, ``warnings`` says so.
    """
    options = await json_body(request, parts, LambdaRequest)
    require_model(options.model, parts)
    async with parts.choosing:
        space, warnings = await _choose(parts, options.clip_weight, if_match=if_match)
    response.headers["ETag"] = _etag(space)
    return {**await _state(parts), "warnings": [item.model_dump() for item in warned(warnings)]}


async def _choose(
    parts: Parts, clip_weight: float, *, if_match: str | None
) -> tuple[EmbeddingSpace, list[VideoWarning]]:
    before = parts.tagger.space
    if if_match is not None and if_match.strip() not in ("*", _etag(before)):
        raise ApiError(
            "precondition_failed",
            f"lambda is {before.clip_weight:g} now.",
            param="If-Match",
            actual=before.clip_weight,
        )
    began = time.perf_counter()
    space = await parts.tagger.set_clip_weight(clip_weight)
    if space != before:
        parts.metrics.lambda_switches.inc()
        parts.metrics.lambda_seconds.observe(time.perf_counter() - began)
        parts.metrics.clip_weight.set(space.clip_weight)
    # After the swap: a start must not trust a lambda that was never checked.
    keep = functools.partial(parts.kept.write, name=space.name, revision=space.revision)
    try:
        await asyncio.to_thread(keep, space.clip_weight)
    except OSError as error:
        logger.error("%s cannot be written: %s", parts.kept.path, error.strerror)
        detail = "This lambda is served, but it could not be kept for the next start."
        return space, [VideoWarning("lambda_not_kept", detail)]
    return space, []


def _etag(space: EmbeddingSpace) -> str:
    return f'"{space.id}"'


async def _state(parts: Parts) -> dict[str, Any]:
    manifest = parts.tagger.manifest
    space = parts.tagger.space
    try:
        content = await parts.index.spaces(max_age_seconds=_COUNT_AGE_SECONDS)
    except IndexUnavailableError:
        content = None  # the index is away; lambda is not
    return {
        "model": manifest.name,
        "revision": manifest.revision,
        "lambda": space.clip_weight,
        "default": manifest.default_clip_weight,
        "space": space.id,
        "resident": [space.clip_weight],
        "grid": [point.clip_weight for point in manifest.curve],
        "metrics": [
            {"lambda": point.clip_weight, "scores": point.scores, "spread": point.spread}
            for point in manifest.curve
        ],
        "selection": {"chosen": manifest.default_clip_weight, "why": manifest.clip_weight_rule},
        "per_index": None
        if content is None
        else [
            {
                "space": found.space.id,
                "lambda": found.space.clip_weight,
                "videos": found.videos,
                "segments": found.segments,
            }
            for found in content
        ],
    }
