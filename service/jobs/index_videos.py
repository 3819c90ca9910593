"""The job that indexes many videos, one after another; each is written down as it is done."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.encode.trial import TrialGoneError
from service.errors import PROBLEMS, ApiError, coded, members
from service.fetch import Fetcher
from service.index.video_index import VideoIndex
from service.jobs.evaluation_tools import EvaluationTools, Lend
from service.jobs.job import Json
from service.jobs.running import RunningJob, insist
from service.jobs.standing_back import stand_back
from service.media.library import MediaLibrary
from service.schemas import IndexRequest
from service.schemas_jobs import BatchOptions, BatchVideo
from service.spool import Spool
from service.video_indexer import Indexed, LocalVideo, VideoFile, VideoIndexer
from service.videoclip.errors import VideoError

logger = logging.getLogger("vtag.jobs")

T = TypeVar("T")

KIND: Final = "index_videos"

_FETCH_PAUSES_SECONDS: Final = (1.0, 5.0)
"""While the host of a URL does not answer; then the video is given up, and the next one is done."""

_ENGINES: Final = 5
"""How often what serves may be replaced under one video."""

_OF_ALL: Final = frozenset({"media_full", "model_not_served", "jobs_unavailable"})
"""Refusals that every later video would meet, too."""


class IndexVideos:
    """Handler of the jobs of kind `KIND`.

    Args:
        lend: see `Lend`.
        index: where they are written.
        media: where videos are kept; None: nowhere.
        fetcher: of URLs.
        spool: where they are fetched to.
        segment_seconds: length of windows, where the request does not say it.
    """

    def __init__(
        self,
        lend: Lend,
        *,
        index: VideoIndex,
        media: MediaLibrary | None,
        fetcher: Fetcher,
        spool: Spool,
        segment_seconds: float,
    ) -> None:
        self._lend = lend
        self._index_of_videos = index
        self._media = media
        self._fetcher = fetcher
        self._spool = spool
        self._segment_seconds = segment_seconds

    async def run(self, job: RunningJob) -> Json:
        """Index what earlier attempts have not; what fails by itself costs itself only.

        Raises:
            ApiError: what concerns all videos: the service is not able to go on now.
            CollectionMissingError: the collection was removed.
            OptionError: the λ cannot be had here.
            EncoderUnavailableError, IndexUnavailableError: as their origins say.
        """
        asked = BatchOptions.model_validate(job.request)
        done = await job.pieces()
        total = len(asked.videos)
        videos: list[Json] = []
        for number, video in enumerate(asked.videos):
            found = done.get(str(number))
            if found is None:
                # The last attempt may have ended between the index and the note about it.
                is_doubtful = job.is_resumed and number == len(done)
                found = await self._one(asked, video, job=job, is_doubtful=is_doubtful)
                await job.save(str(number), found)
            videos.append(found)
            job.report("indexing", done=number + 1, total=total)
        counts = Counter(video["outcome"] for video in videos)
        return {
            "collection": asked.collection,
            **{name: counts[name] for name in ("indexed", "duplicate", "failed")},
            "videos": videos,
        }

    async def _one(
        self, asked: BatchOptions, video: BatchVideo, *, job: RunningJob, is_doubtful: bool
    ) -> Json:
        """Return what became of one video."""
        named = video.model_dump(include={"url", "video_id", "external_id"}, exclude_none=True)
        try:
            stored, is_new, warnings = await self._index(asked, video)
        except VideoError as error:
            problem = members(coded(error, fallback="invalid_video", param="video"))
        except ApiError as error:
            if error.code in _OF_ALL or _may_pass(error):
                raise
            problem = members(error)
        except (EncoderUnavailableError, TrialGoneError):
            raise
        except EncoderError:
            # Of this video: what ails the encoder itself is one of the two above.
            logger.warning("a video cannot be embedded", extra={"job": job.id}, exc_info=True)
            problem = members(ApiError("internal_error", "The video could not be embedded."))
        else:
            is_ours = is_new or (is_doubtful and stored.created_at >= job.created_at)
            shown = [{"code": each.code, "detail": each.detail} for each in warnings]
            outcome: Json = {"outcome": "indexed" if is_ours else "duplicate", "id": stored.id}
            return {**named, **outcome, "segments": stored.segments, "warnings": shown}
        return {**named, "outcome": "failed", "error": problem}

    async def _index(self, asked: BatchOptions, video: BatchVideo) -> Indexed:
        options = IndexRequest.model_validate(
            {
                "collection": asked.collection,
                "segments": asked.segments,
                "external_id": video.external_id,
                "metadata": video.metadata,
                "lambda": asked.clip_weight,
            }
        )
        known = await self._served(asked, lambda indexer: indexer.find(options))
        if known is not None:
            return known, False, ()
        async with self._bytes(video) as file:
            return await self._served(asked, lambda indexer: indexer.add(options, file))

    async def _served(self, asked: BatchOptions, work: Callable[[VideoIndexer], Awaitable[T]]) -> T:
        """Do `work` with what serves now; again if that is replaced and cannot wait for the end."""
        for engine in range(1, _ENGINES + 1):
            try:
                async with self._lend() as tools:
                    _require_model(asked, tools)
                    await stand_back(tools)
                    indexer = VideoIndexer(
                        self._index_of_videos,
                        tagger=tools.tagger,
                        media=self._media,
                        segment_seconds=self._segment_seconds,
                    )
                    return await insist(partial(work, indexer))
            except ApiError as error:
                if error.code != "model_changed" or engine == _ENGINES:
                    raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _bytes(self, video: BatchVideo) -> AsyncIterator[VideoFile]:
        if video.url is not None:
            async with self._fetched(video.url) as file:
                yield file
            return
        video_id = video.video_id or ""
        stored = await insist(lambda: self._index_of_videos.get(video_id))
        if stored is None:
            raise ApiError("video_not_found", "There is no video with this id.", param="video_id")
        if self._media is None:
            raise ApiError("media_not_kept", "This service does not keep videos.", param="video_id")
        async with self._media.local(stored.sha256) as path:
            yield LocalVideo(path, stored.sha256, stored.size_bytes)

    @asynccontextmanager
    async def _fetched(self, url: str) -> AsyncIterator[VideoFile]:
        for pause in (*_FETCH_PAUSES_SECONDS, None):
            async with self._spool.file() as file:
                try:
                    await self._fetcher.fetch(url, file, param="url")
                except ApiError as error:
                    if error.code != "fetch_unavailable" or pause is None:
                        raise
                else:
                    file.close()
                    yield file
                    return
            await asyncio.sleep(pause or 0)


def _may_pass(error: ApiError) -> bool:
    """Whether a later attempt of the whole job is worth it; a URL that is away is given up."""
    return PROBLEMS[error.code].retryable and error.code != "fetch_unavailable"


def _require_model(asked: BatchOptions, tools: EvaluationTools) -> None:
    """Refuse to go on with another model than the one that was named, if one was."""
    manifest = tools.encoder.manifest
    served = f"{manifest.name}@{manifest.revision}"
    if asked.model not in (None, manifest.name, served):
        raise ApiError(
            "model_not_served",
            f"The job was sent for {asked.model}, {served} is served now; send it again.",
            limit=served,
            actual=asked.model,
        )
