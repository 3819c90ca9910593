"""``/lambda``: which share of the original CLIP is served, and what was measured about it."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from service.encode.space import EmbeddingSpace, round_clip_weight
from service.errors import ApiError
from service.ids import new_id
from service.index.video_index import IndexUnavailableError
from service.jobs.evaluation_plan import KIND
from service.routes.answers import index_space, require_model, warned
from service.routes.body import json_body
from service.routes.documents import evaluation_request, json_request
from service.routes.evaluation_set import receive_plan
from service.routes.gate import ADMIN_ONLY
from service.routes.job_shapes import JobAnswer
from service.routes.jobs import PREFIX, job_answer, running_jobs, webhook_of
from service.routes.parts import Parts, Ready
from service.routes.reindexing import moving
from service.routes.shapes import LambdaAnswer, LambdaChange
from service.schemas_jobs import LambdaRequest
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["lambda"])

logger = logging.getLogger("vtag")

EVALUATION = evaluation_request()


@router.get("/lambda", summary="The lambda that is served, and its measured curve")
async def get_lambda(response: Response, parts: Ready) -> LambdaAnswer:
    """1 is CLIP itself, 0 the tuned weights; ``metrics`` is the trade-off measured in training."""
    response.headers["ETag"] = _etag(parts.tagger.space)
    return LambdaAnswer(**await _state(parts))


@router.put(
    "/lambda",
    summary="Serve another lambda",
    dependencies=[ADMIN_ONLY],
    openapi_extra=json_request(LambdaRequest),
)
async def put_lambda(
    request: Request,
    response: Response,
    parts: Ready,
    if_match: Annotated[str | None, Header()] = None,
) -> LambdaChange:
    """Build the weights beside the old ones, check them, swap; requests go on meanwhile.

    The choice is kept for the next start; if the disk refuses it, ``warnings`` says so.
    ``reindex`` (true, or options) embeds every collection that is searched elsewhere again, as the
    job that ``jobs`` names: until it is complete each is searched where it was.
    """
    options = await json_body(request, parts, LambdaRequest)
    async with parts.choosing:  # before what serves is looked at: it may be replaced until then
        require_model(options.model, parts)
        target = replace(parts.tagger.space, clip_weight=round_clip_weight(options.clip_weight))
        if options.reindex is not False:
            _require_two(parts, target)
        async with moving(parts, options.reindex, target=target.id) as begin:
            space, warnings = await _choose(parts, options.clip_weight, if_match=if_match)
            jobs = await begin(index_space(space, parts))
    response.headers["ETag"] = _etag(space)
    return LambdaChange(**await _state(parts), jobs=jobs, warnings=warned(warnings))


@router.post(
    "/lambda/evaluate",
    summary="Measure lambda on a labelled set",
    status_code=202,
    openapi_extra=EVALUATION,
)
async def evaluate_lambda(request: Request, response: Response, parts: Ready) -> JobAnswer:
    """Measure each lambda on videos with labels, and recommend one; the served one is not touched.

    The set is one ``archive`` (zip, tar, tar.gz) with a CSV file of the columns ``path`` and
    ``label`` or with one folder for each class; or ``video`` files with ``labels`` (a JSON array
    in their order, or JSON or CSV by file name); or, as JSON, ``videos`` of the index or a
    ``folder`` of the server. The answer names a job; its result is the curve.
    """
    jobs = running_jobs(parts)
    if parts.evaluation is None:
        raise ApiError("jobs_unavailable", "This service evaluates nothing.")
    parts.admission.check("upload")
    await jobs.check()
    job_id = new_id(PREFIX)
    async with jobs.material(job_id) as folder:
        plan, options = await receive_plan(request, parts, parts.evaluation, folder)
        job = await jobs.submit(
            job_id,
            kind=KIND,
            request=plan.model_dump(mode="json"),
            webhook=options.webhook,
            priority=options.priority,
            bound=plan.source == "files",
        )
    response.headers["Location"] = f"/jobs/{job_id}"
    return job_answer(job, webhook=await webhook_of(job, parts))


def _require_two(parts: Parts, target: EmbeddingSpace) -> None:
    """Refuse to search at one lambda and serve another where only one is in memory.

    Raises:
        ApiError: ``lambda_not_resident``.
    """
    if parts.settings.resident_lambdas < 2 and target != parts.tagger.space:
        raise ApiError(
            "lambda_not_resident",
            "While collections are embedded again they are searched at the old lambda; that needs"
            " VTAG_RESIDENT_LAMBDAS of 2.",
            param="reindex",
            limit=2,
            actual=parts.settings.resident_lambdas,
        )


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
        content = await parts.index.spaces()
    except IndexUnavailableError:
        content = None  # the index is away; lambda is not
    return {
        "model": manifest.name,
        "revision": manifest.revision,
        "lambda": space.clip_weight,
        "default": manifest.default_clip_weight,
        "space": space.id,
        "resident": list(parts.tagger.resident_clip_weights),
        "grid": [point.clip_weight for point in manifest.curve],
        "metrics": [
            {
                "lambda": point.clip_weight,
                "scores": point.scores,
                "spread": point.spread,
                "chosen": point.clip_weight == manifest.default_clip_weight,
                "served": point.clip_weight == space.clip_weight,
            }
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
