"""Embedding spaces of a collection: embedded again in another, switched, removed."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from service.errors import ApiError
from service.index.collection import Collection, SpaceIncompleteError, SpaceInUseError
from service.index.space import Space
from service.routes.answers import index_space, spaces_there
from service.routes.body import json_body
from service.routes.collections import collection_answer, known
from service.routes.documents import json_request
from service.routes.gate import ADMIN_ONLY
from service.routes.job_shapes import JobAnswer
from service.routes.jobs import job_answer, webhook_of
from service.routes.parts import Ready
from service.routes.reindex_shapes import CollectionAnswer, ReindexRequest, SpaceChoice
from service.routes.reindexing import reindex
from service.schemas import CollectionName, Name

router = APIRouter(tags=["collections"])


@router.post(
    "/collections/{name}/reindex",
    summary="Embed a collection again",
    status_code=202,
    dependencies=[ADMIN_ONLY],  # what everybody searches
    openapi_extra=json_request(ReindexRequest),
)
async def reindex_collection(
    name: CollectionName, request: Request, response: Response, parts: Ready
) -> JobAnswer:
    """Embed its kept videos again at a lambda of the model that is served, in the background.

    It is searched where it was until no video lacks the new space; then all at once in the new one.
    The old vectors stay, so that ``activate`` leads back, until they are removed, or go with
    ``"keep": false``. Videos that are not kept cannot be embedded again: the job fails and names
    them, unless ``allow_incomplete`` says to go without. With ``"activate": false`` the collection
    has one more lambda to search with, and stays where it is.
    """
    asked = await json_body(request, parts, ReindexRequest)
    await known(name, parts)
    weight = parts.tagger.videos.weight(asked.clip_weight)
    space = replace(index_space(parts.tagger.space, parts), clip_weight=weight)
    job = await reindex(parts, name, space, asked, activate=asked.activate)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job_answer(job, webhook=await webhook_of(job, parts))


@router.post(
    "/collections/{name}/activate",
    summary="Search a collection in another space",
    dependencies=[ADMIN_ONLY],
    openapi_extra=json_request(SpaceChoice),
)
async def activate_space(name: CollectionName, request: Request, parts: Ready) -> CollectionAnswer:
    """Switch, at once and for all services, to a space that no video lacks; else 409."""
    asked = await json_body(request, parts, SpaceChoice)
    collection = await known(name, parts)
    wanted = asked.space
    if wanted is None:
        weight = parts.tagger.videos.weight(asked.clip_weight)
        wanted = replace(index_space(parts.tagger.space, parts), clip_weight=weight).id
    space = _held(collection, wanted)
    if space is None:
        raise ApiError(
            "index_lambda_mismatch",
            f"The collection holds no vectors of {wanted}; reindex makes them.",
            param="lambda" if asked.space is None else "space",
            extra={"wanted": wanted, "spaces": spaces_there(collection.contents)},
        )
    try:
        await parts.index.activate(space, collection=name)
    except SpaceIncompleteError:
        videos, _ = await parts.index.remaining(space, collection=name)
        raise ApiError(
            "space_incomplete",
            f"{videos} videos have no vectors in {wanted}; reindex makes them.",
            param="lambda" if asked.space is None else "space",
            actual=videos,
            extra={"wanted": wanted, "spaces": spaces_there(collection.contents)},
        ) from None
    return await collection_answer(await known(name, parts), parts)


@router.delete(
    "/collections/{name}/spaces/{space:path}",
    summary="Remove the vectors of one space",
    status_code=204,
    dependencies=[ADMIN_ONLY],
)
async def delete_space(name: CollectionName, space: Name, parts: Ready) -> Response:
    """Remove what a collection holds in a space that is not the active one; its videos stay."""
    collection = await known(name, parts)
    found = _held(collection, space)
    if found is None:
        raise ApiError(
            "space_not_found",
            "The collection holds no vectors of this space.",
            param="space",
            extra={"spaces": spaces_there(collection.contents)},
        )
    if collection.active is None and space == parts.tagger.space.id:
        raise _in_use(space)
    try:
        await parts.index.remove_space(found, collection=name)
    except SpaceInUseError:
        raise _in_use(space) from None
    return Response(status_code=204)


def _held(collection: Collection, name: str) -> Space | None:
    return next((each.space for each in collection.contents if each.space.id == name), None)


def _in_use(space: str) -> ApiError:
    return ApiError(
        "space_in_use",
        "The collection is searched in this space; activate another one first.",
        param="space",
        actual=space,
    )
