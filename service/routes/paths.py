"""Every path of the service, in the order in which its document lists them."""

from __future__ import annotations

from fastapi import FastAPI

from service.routes import (
    batches,
    classify,
    collections,
    embeddings,
    health,
    jobs,
    lambda_,
    long_classify,
    media,
    models,
    problems,
    search,
    spaces,
    thumbnails,
    videos,
)


def install(app: FastAPI) -> None:
    """Serve all of them."""
    indexing = (batches, videos, collections, spaces, media, thumbnails, search)
    about = (models, health, problems)
    for module in (classify, long_classify, *indexing, embeddings, lambda_, jobs, *about):
        app.include_router(module.router)
