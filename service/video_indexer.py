"""From the bytes of a video to segments of the index, where searches of its collection look."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from service.errors import ApiError
from service.index.space import Space
from service.index.video_index import NewSegment, NewVideo, StoredVideo, VideoIndex
from service.media.library import MediaLibrary
from service.schemas import IndexRequest, Segmentation
from service.segments import Cutting, choose_cutting
from service.tagger import Tagger
from service.videoclip.errors import VideoWarning

_MOVES: Final = 5
"""How often a collection may be switched under one request."""

Indexed = tuple[StoredVideo, bool, tuple[VideoWarning, ...]]


class VideoFile(Protocol):
    """A video on disk, with the digest of its bytes (SHA-256, hexadecimal)."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def sha256(self) -> str:
        """Its digest."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""


@dataclass(frozen=True)
class LocalVideo:
    """A video that lies on disk as a whole."""

    path: Path
    sha256: str
    size_bytes: int


class VideoIndexer:
    """Writes videos into the index.

    Args:
        index: where they are written.
        tagger: what makes their vectors.
        media: where their bytes are kept; None: nowhere.
        segment_seconds: length of their windows, where a request does not say it.
    """

    def __init__(
        self,
        index: VideoIndex,
        *,
        tagger: Tagger,
        media: MediaLibrary | None,
        segment_seconds: float,
    ) -> None:
        self._index = index
        self._tagger = tagger
        self._media = media
        self._segment_seconds = segment_seconds

    async def add(
        self, options: IndexRequest, video: VideoFile, *, deadline: float | None = None
    ) -> Indexed:
        """Write a video in the space that is asked for, else in the one that its collection is in.

        A switch to another space looks for videos that lack it; one that comes between our look and
        our writing would miss this video. So we look again afterwards, and write it there, too.

        Args:
            options: what is asked.
            video: its bytes.
            deadline: `time.monotonic()` at which it is worthless.

        Returns:
            The video, whether it is new, and what the client should know.

        Raises:
            ApiError: ``encoder_unavailable``: what is searched now is of another artefact than the
                one that this request has; or the collection was switched again and again.
            CollectionMissingError: there is no such collection.
        """
        active, space = await self._where(options)
        stored, is_new, warnings = await self._write(options, video, space, deadline=deadline)
        for _ in range(_MOVES):
            if options.clip_weight is not None:
                break
            now, wanted = await self._where(options)
            if now is not None and now != active and now.id not in stored.spaces:
                wanted = now
            if wanted.id in stored.spaces:
                break
            if not self._is_ours(wanted):
                raise _moved()
            active = now
            stored, _, _ = await self._write(options, video, wanted, deadline=deadline)
        else:
            if active is not None:  # else it follows what is served, and that changes all the time
                raise _moved()
        return stored, is_new, warnings

    async def find(self, options: IndexRequest) -> StoredVideo | None:
        """Return a video of the collection with this ``external_id`` that has what is asked for."""
        if options.external_id is None:
            return None
        found = await self._index.list(
            limit=1,
            before=None,
            external_id=options.external_id,
            collection=options.collection,
        )
        _, space = await self._where(options)
        return found[0] if found and space.id in found[0].spaces else None

    async def _where(self, options: IndexRequest) -> tuple[Space | None, Space]:
        """Return the active space of the collection, and the one that this request writes in."""
        active = await self._index.active_space(options.collection)
        served = self._served
        if options.clip_weight is not None:
            weight = self._tagger.videos.weight(options.clip_weight)
            return active, replace(served, clip_weight=weight)
        # Vectors of an artefact that is not here cannot be made: those of the served one can.
        return active, active if active is not None and self._is_ours(active) else served

    @property
    def _served(self) -> Space:
        space = self._tagger.space
        size = self._tagger.manifest.embedding_size
        return Space(space.name, space.revision, space.clip_weight, size)

    def _is_ours(self, space: Space) -> bool:
        served = self._tagger.space
        return (space.name, space.revision) == (served.name, served.revision)

    async def _write(
        self, options: IndexRequest, video: VideoFile, space: Space, *, deadline: float | None
    ) -> Indexed:
        known = await self._index.find(video.sha256, collection=options.collection)
        if known is not None and space.id in known.spaces:
            async with self._keeping(video):
                changed = await self._index.update(
                    known.id, external_id=options.external_id, metadata=options.metadata
                )
            if changed is not None:
                return changed, False, _not_cut_again(options)
        cut = await self._tagger.videos.embed_segments(
            video.path,
            clip_weight=space.clip_weight,
            cutting=self._cutting(options.segments),
            deadline=deadline,
        )
        facts = NewVideo(
            sha256=video.sha256,
            size_bytes=video.size_bytes,
            external_id=options.external_id,
            metadata=options.metadata,
            duration_seconds=cut.info.duration_seconds,
            fps=cut.info.fps,
            width=cut.info.width,
            height=cut.info.height,
            codec=cut.info.codec,
            collection=options.collection,
        )
        made = cut.space
        size = self._tagger.manifest.embedding_size
        async with self._keeping(video):
            stored, is_new = await self._index.add(
                facts,
                space=Space(made.name, made.revision, made.clip_weight, size),
                segments=[NewSegment(part.start, part.end, part.vector) for part in cut.segments],
            )
        return stored, is_new, cut.warnings

    def _cutting(self, asked: Segmentation) -> Cutting:
        return choose_cutting(
            "shots" if asked.mode == "shots" else "windows",
            length=asked.length,
            overlap=None,
            default_length=self._segment_seconds,
        )

    def _keeping(self, video: VideoFile) -> AbstractAsyncContextManager[None]:
        """Keep the bytes of a video while it is added to the index, if videos are kept."""
        if self._media is None:
            return nullcontext()
        return self._media.keeping(video.path, sha256=video.sha256, size_bytes=video.size_bytes)


def _moved() -> ApiError:
    return ApiError(
        "encoder_unavailable",
        "The collection was switched to another space meanwhile; send the video again.",
        retry_after_seconds=1,
    )


def _not_cut_again(options: IndexRequest) -> tuple[VideoWarning, ...]:
    if options.segments == Segmentation():
        return ()
    detail = (
        "The video was indexed before and keeps its segments; segments had no effect."
        " Delete the video first to cut it anew."
    )
    return (VideoWarning("already_indexed", detail),)
