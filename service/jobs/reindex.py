"""The job that re-embeds collections, and switches each to the new space once it is complete.

Until then a collection is searched in the space that it was searched in before. What is finished is
in the index, video by video: another attempt asks what is lacking, and goes on from there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any, Final

from service.errors import ApiError
from service.index.collection import CollectionMissingError, SpaceIncompleteError, SpaceInUseError
from service.index.space import Space
from service.jobs.evaluation_tools import EvaluationTools, Lend
from service.jobs.job import Json
from service.jobs.missing_vectors import MissingVectors
from service.jobs.reindex_plan import ReindexPlan
from service.jobs.running import RunningJob, insist
from service.media.library import MediaLibrary

_MOST_IDS: Final = 100
"""Of videos that could not be embedded again, that the result names."""

_MOST_COLLECTIONS: Final = 50
"""That the problem of a job that failed names."""


class Reindex:
    """Handler of the jobs of kind `reindex_plan.KIND`.

    Args:
        lend: see `Lend`.
        media: where the videos are; None: none are kept.
        grace_seconds: between the switch and the removal of what was searched before: requests
            that began before the switch end meanwhile.
    """

    def __init__(self, lend: Lend, *, media: MediaLibrary | None, grace_seconds: float) -> None:
        self._lend = lend
        self._media = media
        self._grace_seconds = grace_seconds

    async def run(self, job: RunningJob) -> Json:
        """Re-embed what lacks the space, and switch; goes on after what earlier attempts did.

        Raises:
            ApiError: ``model_changed``, ``reindex_incomplete``, ``collection_not_found``,
                ``media_unavailable``, ``media_full``.
            EncoderError, ArtefactError, IndexUnavailableError: as their origins say.
        """
        plan = ReindexPlan.model_validate(job.request)
        async with self._lend() as tools:
            manifest = tools.encoder.manifest
            if (plan.model, plan.revision) != (manifest.name, manifest.revision):
                served = f"{manifest.name}@{manifest.revision}"
                raise ApiError(
                    "model_changed",
                    f"The job was sent for {plan.model}@{plan.revision}, {served} is served now;"
                    " send it again.",
                    limit=served,
                    actual=f"{plan.model}@{plan.revision}",
                )
            attempt = _Attempt(tools, job, plan, media=self._media)
            return await attempt.run(grace_seconds=self._grace_seconds)


class _Attempt:
    """One run over one plan."""

    def __init__(
        self,
        tools: EvaluationTools,
        job: RunningJob,
        plan: ReindexPlan,
        *,
        media: MediaLibrary | None,
    ) -> None:
        self._index = tools.index
        self._job = job
        self._plan = plan
        self._vectors = MissingVectors(tools, job, plan, media=media)
        self._pieces: dict[str, Json] = {}

    async def run(self, *, grace_seconds: float) -> Json:
        self._pieces = dict(await self._job.pieces())
        await self._vectors.count()
        reports = [await self._collection(name) for name in self._plan.collections]
        if all(report.get("gone") for report in reports):
            raise CollectionMissingError(self._plan.collections[0])
        if not self._plan.keep:
            await self._drop(reports, grace_seconds=grace_seconds)
        left = [report for report in reports if not report["complete"] and not report.get("gone")]
        if not self._plan.allow_incomplete or self._plan.activate:
            left = [each for each in left if not each["switched"]]
            if left:
                raise _incomplete(left, self._plan.space)
        self._vectors.finish()
        return {"space": self._plan.space.id, "collections": _bounded(reports)}

    async def _collection(self, name: str) -> Json:
        if f"done/{name}" in self._pieces:
            return self._pieces[f"done/{name}"]
        try:
            previous = await self._previous(name)
            report = await self._fill(name)
        except CollectionMissingError:  # removed meanwhile
            return {"collection": name, "gone": True, "complete": False, "switched": False}
        report["previous"] = None if previous is None else previous.id
        if report["switched"] or not self._plan.activate:
            # Not again in another attempt: by then somebody may have chosen another space.
            await self._job.save(f"done/{name}", report)
        return report

    async def _previous(self, name: str) -> Space | None:
        """Return the space that was searched when the first attempt came to this collection."""
        found = self._pieces.get(f"before/{name}")
        if found is None:
            active = await insist(lambda: self._index.active_space(name))
            found = {"space": None if active is None else vars(active)}
            await self._job.save(f"before/{name}", found)
            self._pieces[f"before/{name}"] = found
        return None if found["space"] is None else Space(**found["space"])

    async def _fill(self, name: str) -> Json:
        space, plan = self._plan.space, self._plan
        while True:
            missing = await self._vectors.fill(name)
            report: Json = {
                "collection": name,
                "complete": not missing,
                "switched": False,
                "missing": _missing(missing),
            }
            if not plan.activate or (missing and not plan.allow_incomplete):
                return report
            if missing and not await self._vectors.there(name):
                return report  # a space without any vector is no place to search
            self._vectors.tell("building")
            await insist(self._index.build_graphs)  # or searches would be slow after the switch
            try:
                # The look for what is lacking and the switch are one transaction, which waits for
                # videos that are being added: whatever came meanwhile, nothing is left behind.
                await insist(partial(self._activate, name, space, list(missing)))
            except SpaceIncompleteError:
                continue
            return report | {"switched": True}

    async def _activate(self, name: str, space: Space, without: list[str]) -> None:
        await self._index.activate(space, collection=name, without=without)

    async def _drop(self, reports: list[Json], *, grace_seconds: float) -> None:
        """Remove the vectors that were searched before, where the switch was made."""
        gone: list[tuple[Json, Space]] = []
        for report in reports:
            if report["switched"]:
                previous = await self._previous(report["collection"])
                if previous is not None and previous.id != self._plan.space.id:
                    gone.append((report, previous))
        if not gone:
            return
        self._vectors.tell("dropping")
        await asyncio.sleep(grace_seconds)
        for report, previous in gone:
            report["dropped"] = await self._remove(report["collection"], previous)

    async def _remove(self, name: str, space: Space) -> bool:
        try:
            await insist(lambda: self._index.remove_space(space, collection=name))
        except (SpaceInUseError, CollectionMissingError):  # it was chosen again, or has gone
            return False
        return True


def _missing(missing: dict[str, str]) -> Json:
    return {
        "count": len(missing),
        "codes": dict(Counter(missing.values())),
        "ids": sorted(missing)[:_MOST_IDS],
    }


def _bounded(reports: list[Json]) -> list[Json]:
    """Return reports that name so many ids of videos together."""
    left, found = _MOST_IDS, []
    for report in reports:
        if "missing" in report:
            ids = report["missing"]["ids"][:left]
            left -= len(ids)
            report = {**report, "missing": {**report["missing"], "ids": ids}}
        found.append(report)
    return found


def _incomplete(left: list[Json], space: Space) -> ApiError:
    videos = sum(report["missing"]["count"] for report in left)
    extra: dict[str, Any] = {
        "space": space.id,
        "collections": _bounded(left[:_MOST_COLLECTIONS]),
    }
    return ApiError(
        "reindex_incomplete",
        f"{videos} videos could not be embedded again, so {len(left)} collections are searched"
        " where they were. What was embedded stays: send these videos again and repeat the job,"
        " or repeat it with allow_incomplete.",
        param="allow_incomplete",
        actual=videos,
        extra=extra,
    )
