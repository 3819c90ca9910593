"""Jobs that re-embed collections: who may begin one, and what is searched until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from service.errors import ApiError
from service.ids import new_id
from service.index.space import Space
from service.index.video_index import IndexUnavailableError
from service.jobs.job import ENDED, STATES, Job
from service.jobs.reindex_plan import KIND, ReindexPlan, plan
from service.routes.answers import index_space
from service.routes.jobs import PREFIX, running_jobs
from service.routes.parts import Parts
from service.schemas_jobs import Reindexing, ReindexOptions

Begin = Callable[[Space], Awaitable[list[str]]]

_MOST_JOBS: Final = 1000


@asynccontextmanager
async def moving(parts: Parts, wanted: Reindexing, *, target: str) -> AsyncIterator[Begin]:
    """Change what is served inside, then call what is lent with the space that is served.

    That begins the job for every collection that is searched elsewhere, and returns its id, with
    those of jobs that do the same already. Collections that follow the service are held where they
    are before the change, and follow again if it is not made: searches notice nothing.

    Args:
        parts: of the request.
        wanted: False: nothing is done.
        target: what the names of spaces begin with that may be served then.

    Raises:
        ApiError: ``jobs_unavailable``, ``saturated``, ``reindex_running``, ``webhook_not_allowed``.
    """
    if wanted is False:
        yield _nothing
        return
    options = ReindexOptions() if wanted is True else wanted
    await check(parts, options)
    for job, made in await _unfinished(parts):
        if made.activate and not made.space.id.startswith(target):
            raise _running(job, made)
    before = index_space(parts.tagger.space, parts)
    pinned = await parts.index.pin(before)
    is_served = False

    async def begin(space: Space) -> list[str]:
        nonlocal is_served
        is_served = True
        # Once more: a collection may have got its first video meanwhile.
        await parts.index.pin(before)
        names = [
            each.name
            for each in await parts.index.collections()
            if each.active is not None and each.active.id != space.id
        ]
        ids: list[str] = []
        for job, made in await _unfinished(parts):
            if made.space.id == space.id and made.activate and set(names) & set(made.collections):
                names = [name for name in names if name not in made.collections]
                ids.append(job.id)
        if names:
            ids.append((await _submit(parts, names, space, options, activate=True)).id)
        return ids

    try:
        yield begin
    except BaseException:
        if not is_served:
            with suppress(IndexUnavailableError):  # then they stay where they are searched now
                await parts.index.unpin(pinned)
        raise


async def reindex(
    parts: Parts, name: str, space: Space, options: ReindexOptions, *, activate: bool
) -> Job:
    """Begin the job for one collection, or return the one that does the same already.

    Args:
        parts: of the request.
        name: of the collection, which is there.
        space: that it gets.
        options: of the job.
        activate: it is searched there at the end.

    Raises:
        ApiError: as `moving`.
    """
    await check(parts, options)
    for job, made in await _unfinished(parts):
        if name not in made.collections:
            continue
        if (made.space.id, made.activate) == (space.id, activate):
            return job
        if made.activate and activate:
            raise _running(job, made)
    if activate:
        served = index_space(parts.tagger.space, parts)
        await parts.index.pin(served, collections=[name])
    return await _submit(parts, [name], space, options, activate=activate)


async def check(parts: Parts, options: ReindexOptions) -> None:
    """Refuse now what would be refused later.

    Raises:
        ApiError: ``jobs_unavailable``, ``saturated``, ``webhook_not_allowed``.
    """
    await running_jobs(parts).check()
    if options.webhook is not None and parts.webhooks is not None:
        parts.webhooks.check(options.webhook)


async def _nothing(_: Space) -> list[str]:
    return []


async def _unfinished(parts: Parts) -> list[tuple[Job, ReindexPlan]]:
    """Return the jobs of this kind that have not ended, of all services."""
    states = [state for state in STATES if state not in ENDED]
    found = await running_jobs(parts).records.list(
        limit=_MOST_JOBS, before=None, states=states, kind=KIND
    )
    return [(job, ReindexPlan.model_validate(job.request)) for job in found]


async def _submit(
    parts: Parts, names: Sequence[str], space: Space, options: ReindexOptions, *, activate: bool
) -> Job:
    made = plan(
        space,
        tuple(names),
        activate=activate,
        keep=options.keep,
        allow_incomplete=options.allow_incomplete,
    )
    return await running_jobs(parts).submit(
        new_id(PREFIX),
        kind=KIND,
        request=made.model_dump(mode="json"),
        webhook=options.webhook,
        priority=options.priority,
    )


def _running(job: Job, made: ReindexPlan) -> ApiError:
    return ApiError(
        "reindex_running",
        f"{job.id} embeds collections in {made.space.id}; wait for its end, or cancel it.",
        actual=made.space.id,
        extra={"job": job.id},
        retry_after_seconds=30,
    )
