"""Which kinds of jobs there are, and what does them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.index.postgres import PostgresIndex
from service.jobs import evaluation_plan, index_videos, long_classification, reindex_plan
from service.jobs.index_videos import IndexVideos
from service.jobs.lambda_evaluation import LambdaEvaluation
from service.jobs.long_classification import LongClassification
from service.jobs.material import MaterialFolders
from service.jobs.queue import JobQueue
from service.jobs.records import JobRecords
from service.jobs.reindex import Reindex
from service.jobs.runner import Jobs
from service.jobs.running import Handler
from service.jobs.upkeep import JobUpkeep
from service.routes import problems
from service.routes.classifying import timeline
from service.routes.parts import Parts
from service.serving import Serving


@asynccontextmanager
async def open_jobs(
    parts: Parts, *, serving: Serving, index: PostgresIndex, folder: Path
) -> AsyncIterator[Jobs]:
    """Lend what takes jobs and has them done, started.

    Args:
        parts: of the application, but for the jobs.
        serving: what they work with.
        index: on whose database they are kept.
        folder: for what they work on.
    """
    settings = parts.settings
    folders = MaterialFolders(folder)
    owner = folders.open()
    jobs = Jobs(
        JobRecords(index.database, owner=owner),
        upkeep=JobUpkeep(index.database, owner=owner),
        queue=JobQueue(index.database, owner=owner, at_once=settings.max_running_jobs),
        folders=folders,
        handlers=_handlers(parts, serving=serving, index=index),
        explain=problems.explain,
        max_waiting=settings.max_waiting_jobs,
        history_seconds=settings.job_history_seconds,
        retries=settings.job_retries,
        retry_seconds=settings.job_retry_seconds,
        metrics=parts.metrics,
    )
    try:
        await jobs.start()
        yield jobs
    finally:
        await jobs.stop()


def _handlers(parts: Parts, *, serving: Serving, index: PostgresIndex) -> dict[str, Handler]:
    settings, lend, media = parts.settings, serving.evaluating, parts.media
    return {
        evaluation_plan.KIND: LambdaEvaluation(lend, cache_bytes=settings.evaluation_cache_bytes),
        reindex_plan.KIND: Reindex(
            lend, media=media, grace_seconds=settings.request_timeout_seconds
        ),
        index_videos.KIND: IndexVideos(
            lend,
            index=index,
            media=media,
            fetcher=parts.fetcher,
            spool=parts.spool,
            segment_seconds=settings.segment_seconds,
        ),
        long_classification.KIND: LongClassification(
            lend,
            media=media,
            fetcher=parts.fetcher,
            shape=timeline,
            segment_seconds=settings.segment_seconds,
            max_bytes=settings.max_upload_bytes,
            max_tags=settings.max_segment_tags,
        ),
    }
