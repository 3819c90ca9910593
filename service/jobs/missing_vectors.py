"""What a collection lacks in a space: found, embedded from the kept videos, counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.encode.trial import Trial, TrialGoneError
from service.errors import ApiError
from service.index.collection import CollectionMissingError
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.reembedding import Reembedder
from service.jobs.reindex_plan import ReindexPlan
from service.jobs.running import RunningJob, insist
from service.jobs.standing_back import stand_back
from service.media.library import MediaLibrary
from service.videoclip.errors import VideoError

logger = logging.getLogger("vtag.jobs")

_PAGE: Final = 100
"""Videos for which the trial network is held; an evaluation of λ gets it in between."""

_BUILDS: Final = 20
"""How often the network is built again without finishing a video, before the job gives up."""

_PAUSES_SECONDS: Final = (1.0, 5.0, 15.0, 30.0, 60.0)
"""While the store of videos does not answer."""


class MissingVectors:
    """Fills collections, one video at a time, and tells the job how far it is.

    Args:
        tools: of the artefact.
        job: told of progress, in segments.
        plan: which space.
        media: where the videos are; None: none are kept.
    """

    def __init__(
        self,
        tools: EvaluationTools,
        job: RunningJob,
        plan: ReindexPlan,
        *,
        media: MediaLibrary | None,
    ) -> None:
        self._tools = tools
        self._index = tools.index
        self._job = job
        self._plan = plan
        self._space = plan.space
        self._media = media
        self._reembedder = None if media is None else Reembedder(tools, media=media)
        self._done = 0
        self._total = 0
        self._failed: dict[str, str] = {}

    async def count(self) -> None:
        """Find out how much there is to do, and how much of it was done before."""
        for name in self._plan.collections:
            try:
                _, left = await insist(partial(self._remaining, name))
            except CollectionMissingError:
                continue
            there = await self.there(name)
            self._done += there
            self._total += there + left
        self.tell("embedding")

    async def fill(self, collection: str) -> dict[str, str]:
        """Embed what lacks the space; return id -> code of the videos that could not be.

        Raises:
            CollectionMissingError: it is gone.
            ApiError, EncoderError, IndexUnavailableError: nothing more can be done now.
        """
        missing: dict[str, str] = {}
        after = ""
        while ids := await self._lacking(collection, after):
            after = ids[-1]
            kept = await self._kept(ids)
            for video_id in ids:
                if video_id not in kept:
                    missing[video_id] = "media_not_kept"
                elif video_id in self._failed:
                    missing[video_id] = self._failed[video_id]
            await self._embed([each for each in ids if each not in missing])
            missing |= {each: self._failed[each] for each in ids if each in self._failed}
        return await self._still(missing, collection) if missing else missing

    async def there(self, collection: str) -> int:
        """Return how many segments a collection has in the space."""
        found = await insist(lambda: self._index.spaces(collection=collection))
        return sum(each.segments for each in found if each.space.id == self._space.id)

    def finish(self) -> None:
        """Tell that all is done."""
        self._job.report("done", done=self._total + 1, total=self._total + 1)

    def tell(self, stage: str, *, more: int = 0) -> None:
        """Tell how far the job is; `more` segments of the present video are done."""
        done = min(self._done + more, self._total)
        # One unit for what comes after: only a job that has ended is done.
        self._job.report(stage, done=done, total=self._total + 1)

    async def _remaining(self, collection: str) -> tuple[int, int]:
        return await self._index.remaining(self._space, collection=collection)

    async def _lacking(self, collection: str, after: str) -> Sequence[str]:
        return await insist(
            lambda: self._index.lacking(
                self._space, collection=collection, limit=_PAGE, after=after
            )
        )

    async def _still(self, missing: dict[str, str], collection: str) -> dict[str, str]:
        """Leave out videos that were deleted meanwhile: nobody misses their vectors."""
        found: dict[str, str] = {}
        after = ""
        while ids := await self._lacking(collection, after):
            after = ids[-1]
            found |= {each: missing[each] for each in ids if each in missing}
        return found

    async def _kept(self, ids: Sequence[str]) -> set[str]:
        media = self._media
        return set() if media is None else await insist(lambda: media.kept_videos(ids))

    async def _embed(self, ids: Sequence[str]) -> None:
        """Embed videos by one network, built again when it is lost."""
        left, builds = list(ids), 0
        while left:
            await stand_back(self._tools)  # building takes the processor, too
            try:
                async with self._tools.encoder.trial(self._plan.clip_weight) as trial:
                    while left:
                        await self._one(left[0], trial)
                        builds = 0
                        del left[0]
            except TrialGoneError:
                builds += 1
                if builds == _BUILDS:
                    raise

    async def _one(self, video_id: str, trial: Trial) -> None:
        cut = await insist(lambda: self._index.cut(video_id))
        if cut is None or self._reembedder is None:  # deleted meanwhile
            return
        for pause in (*_PAUSES_SECONDS, None):
            try:
                segments = await self._reembedder.embed(
                    cut, trial, tell=lambda more: self.tell("embedding", more=more)
                )
                break
            except VideoError as error:
                self._failed[video_id] = error.code
                return
            except ApiError as error:
                if error.code == "media_not_kept":  # deleted meanwhile, or lost by the store
                    self._failed[video_id] = error.code
                    return
                if error.code != "media_unavailable" or pause is None:
                    raise
                await asyncio.sleep(pause)
            except (TrialGoneError, EncoderUnavailableError):
                raise
            except EncoderError:
                # Of this video: what ails the encoder itself is one of the two above.
                logger.warning("a video cannot be embedded", extra={"video": video_id})
                self._failed[video_id] = "internal_error"
                return
        await insist(lambda: self._index.embed(video_id, space=self._space, segments=segments))
        self._done += len(segments)
        self._total = max(self._total, self._done)  # videos that came meanwhile
        self.tell("embedding")
