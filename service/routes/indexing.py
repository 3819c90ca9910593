"""Videos of requests, written into the index."""

from __future__ import annotations

from service.routes.parts import Parts
from service.schemas import IndexRequest
from service.video_indexer import Indexed, VideoFile, VideoIndexer


async def index_video_bytes(
    parts: Parts, options: IndexRequest, video: VideoFile, *, deadline: float
) -> Indexed:
    """Write a video with what serves this request; see `VideoIndexer.add`."""
    indexer = VideoIndexer(
        parts.index,
        tagger=parts.tagger,
        media=parts.media,
        segment_seconds=parts.settings.segment_seconds,
    )
    return await indexer.add(options, video, deadline=deadline)
