"""``/collections``: named sets of videos, each searched by itself."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.errors import ApiError
from service.index.collection import DEFAULT_COLLECTION, Collection, CollectionMissingError
from service.routes.answers import index_space
from service.routes.body import json_body
from service.routes.documents import json_request
from service.routes.gate import ADMIN_ONLY
from service.routes.parts import Parts, Ready
from service.routes.reindex_shapes import (
    CollectionAnswer,
    CollectionPage,
    CollectionSpaceAnswer,
)
from service.schemas import CollectionName, CollectionRequest

router = APIRouter(tags=["collections"])


@router.post(
    "/collections",
    summary="Make a collection",
    status_code=201,
    openapi_extra=json_request(CollectionRequest),
)
async def create_collection(request: Request, response: Response, parts: Ready) -> CollectionAnswer:
    """An empty set; ``default`` is there already. 409 if the name is taken."""
    asked = await json_body(request, parts, CollectionRequest)
    made = await parts.index.create_collection(asked.name)
    response.headers["Location"] = f"/collections/{made.name}"
    return await collection_answer(made, parts)


@router.get("/collections", summary="List collections, by name")
async def list_collections(parts: Ready) -> CollectionPage:
    """All of them, with what they hold."""
    found = await parts.index.collections()
    return CollectionPage(data=[await collection_answer(each, parts) for each in found])


@router.get("/collections/{name}", summary="One collection")
async def get_collection(name: CollectionName, parts: Ready) -> CollectionAnswer:
    """How many videos it holds, and in which embedding spaces: searched, complete, under way."""
    return await collection_answer(await known(name, parts), parts)


@router.delete(
    "/collections/{name}",
    summary="Remove a collection",
    status_code=204,
    dependencies=[ADMIN_ONLY],  # with the videos of everybody
)
async def delete_collection(name: CollectionName, parts: Ready) -> Response:
    """Remove it with all its videos. ``default`` stays: what names no collection goes there."""
    if name == DEFAULT_COLLECTION:
        raise ApiError(
            "collection_required", "The default collection cannot be removed.", param="name"
        )
    if not await parts.index.delete_collection(name):
        raise CollectionMissingError(name)
    if parts.media is not None:
        parts.media.sweep_soon()
    return Response(status_code=204)


async def collection_answer(collection: Collection, parts: Parts) -> CollectionAnswer:
    """A collection with what it holds, and whether that is all."""
    active = collection.active or index_space(parts.tagger.space, parts)
    spaces = [
        CollectionSpaceAnswer(
            space=content.space.id,
            clip_weight=content.space.clip_weight,
            videos=content.videos,
            segments=content.segments,
            active=content.space.id == active.id,
            # Most often counting tells; only a video without any segment needs a look at all.
            complete=content.videos == collection.videos
            or await parts.index.complete(content.space, collection=collection.name),
        )
        for content in collection.contents
    ]
    return CollectionAnswer(
        name=collection.name,
        created_at=collection.created_at,
        videos=collection.videos,
        active_space=None if collection.active is None else collection.active.id,
        spaces=spaces,
    )


async def known(name: str, parts: Parts) -> Collection:
    """Return a collection.

    Raises:
        CollectionMissingError: there is none of this name.
    """
    found = await parts.index.collection(name)
    if found is None:
        raise CollectionMissingError(name)
    return found
