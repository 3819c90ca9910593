"""From what a search is for to one unit vector of one embedding space.

Several parts make one vector as in Rocchio's relevance feedback (C. D. Manning, P. Raghavan and
H. Schütze, Introduction to Information Retrieval, 2008, section 9.1.1): the weighted sum of what is
wanted, less the weighted sum of what is not. All parts have unit length before, so that weights
mean the same for texts, pictures and videos; and what comes of it has unit length again, so that
scores are cosines as ever. What is not wanted counts half by default: there, too, the unwanted
weighs less than the wanted, which one is surer of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from service.errors import ApiError
from service.ids import is_id
from service.index.space import Space
from service.index.video_index import Vector
from service.routes.answers import index_space
from service.routes.body import spool_source
from service.routes.parts import Parts
from service.routes.search_shapes import Query, QueryMedia, QueryPart, QuerySource, SearchRequest
from service.schemas import VideoSource
from service.videoclip.errors import VideoWarning

ADDED_WEIGHT: Final = 1.0
SUBTRACTED_WEIGHT: Final = 0.5

_LEAST_LENGTH: Final = 1e-4  # of a sum of unit vectors; below it, rounding decides on a direction


@dataclass(frozen=True)
class QueryVector:
    """What is searched with.

    Attributes:
        vector: float32 (D,), unit length.
        space: of the vector.
        without: ids of videos that stand for themselves in the query, and are no hits.
    """

    vector: Vector
    space: Space
    without: tuple[str, ...]
    warnings: tuple[VideoWarning, ...]


def videos_without(query: str | Query) -> tuple[str, ...]:
    """The videos of the index that a query asks for others like."""
    if isinstance(query, str):
        return ()
    sources: Sequence[QuerySource] = [query] if query.parts is None else query.parts
    return tuple(
        part.video_id
        for part in sources
        if part.video_id is not None and not getattr(part, "subtract", False)
    )


def combine(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """Return the unit vector of the weighted sum of unit vectors; None if it has no direction.

    Args:
        vectors: float32 (D,) each, unit length.
        weights: one each; below 0 for what is taken away.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]  # to the last bit
    whole = np.asarray(weights, np.float64) @ np.stack(vectors).astype(np.float64)
    length = float(np.linalg.norm(whole))
    if length < _LEAST_LENGTH * sum(abs(weight) for weight in weights):
        return None
    return np.asarray(whole / length, np.float32)


@dataclass
class QueryMaker:
    """Makes the vector of one request.

    Attributes:
        parts: of the service.
        options: the request.
        files: of its form, by name.
        space: that is searched; None: the one that is served.
        deadline: of `time.monotonic`.
    """

    parts: Parts
    options: SearchRequest
    files: Mapping[str, Path]
    space: Space | None
    deadline: float
    _met: set[Space] = field(default_factory=set)
    _warnings: list[VideoWarning] = field(default_factory=list)

    async def make(self) -> QueryVector:
        """Embed what has to be embedded, look up what is there, and put it together.

        Raises:
            ApiError, VideoError: the request cannot be answered.
            EncoderError, DeadlineExceededError: as `Tagger.classify`.
        """
        asked = self.options.query
        query = Query(text=asked) if isinstance(asked, str) else asked
        sources: Sequence[QuerySource] = [query] if query.parts is None else query.parts
        names = [
            "query" if query.parts is None else f"query.parts.{n}" for n in range(len(sources))
        ]
        self._require_served(sources)
        vectors: list[Vector | None] = [None] * len(sources)
        await self._texts(sources, vectors)
        for number, source in enumerate(sources):
            if source.image is not None or source.video is not None:
                vectors[number] = await self._media(source, names[number])
        space = self._agreed()
        for number, source in enumerate(sources):
            if source.embedding is not None:
                vectors[number] = _given(source.embedding, space, param=names[number])
            elif source.video_id is not None:
                vectors[number] = await self._stored(source.video_id, space, param=names[number])
        found = [vector for vector in vectors if vector is not None]
        vector = combine(found, [_weight(source) for source in sources])
        if vector is None:
            raise ApiError(
                "invalid_embedding", "The parts of the query cancel each other out.", param="query"
            )
        return QueryVector(vector, space, videos_without(asked), tuple(self._warnings))

    @property
    def _clip_weight(self) -> float | None:
        return None if self.space is None else self.space.clip_weight

    def _require_served(self, sources: Sequence[QuerySource]) -> None:
        """Refuse what would have to be embedded by a model that is not served."""
        served = index_space(self.parts.tagger.space, self.parts)
        space = self.space or served
        if (space.name, space.revision) == (served.name, served.revision):
            return
        if all(each.embedding is not None or each.video_id is not None for each in sources):
            return
        raise ApiError(
            "index_lambda_mismatch",
            f"The collection is searched in {space.id}, and {served.id} is served: this service"
            " cannot embed a query for it. Send an embedding, or name a lambda that is there.",
            param="query",
            extra={"wanted": served.id, "spaces": [{"id": space.id}]},
        )

    async def _texts(self, sources: Sequence[QuerySource], vectors: list[Vector | None]) -> None:
        texts = {n: source.text for n, source in enumerate(sources) if source.text is not None}
        if not texts:
            return
        tagger = self.parts.tagger
        # A frozen text tower gives the same vector for every lambda.
        is_tuned = tagger.manifest.text_tower_tuned
        found = await tagger.embed_texts(
            list(texts.values()),
            templates=self.options.templates,
            clip_weight=self._clip_weight if is_tuned else None,
            deadline=self.deadline,
        )
        for number, vector in zip(texts, found.vectors, strict=True):
            vectors[number] = vector
        if is_tuned or self.space is None:
            self._met.add(index_space(found.space, self.parts))
        self._warnings += found.warnings

    async def _media(self, source: QuerySource, param: str) -> Vector:
        videos = self.parts.tagger.videos
        embed = videos.embed_video if source.image is None else videos.embed_picture
        media = source.image or source.video
        assert media is not None  # noqa: S101 - the caller looked
        param = f"{param}.{'video' if source.image is None else 'image'}"
        async with AsyncExitStack() as stack:
            path = await self._file(media, stack, param)
            found = await embed(path, clip_weight=self._clip_weight, deadline=self.deadline)
        self._met.add(index_space(found.space, self.parts))
        self._warnings += found.warnings
        return found.vector

    async def _file(self, media: QueryMedia, stack: AsyncExitStack, param: str) -> Path:
        if media.type == "file":
            path = self.files.get(media.name or "")
            if path is None:
                raise ApiError(
                    "missing_video", "The form has no file of this name.", param=f"{param}.name"
                )
            return path
        file = await stack.enter_async_context(self.parts.spool.file())
        source = VideoSource(type=media.type, data=media.data, url=media.url)
        await spool_source(source, file, fetcher=self.parts.fetcher, param=param)
        file.close()
        return file.path

    def _agreed(self) -> Space:
        """The one space that everything is of which was embedded."""
        spaces = self._met if self.space is None else {self.space, *self._met}
        if len(spaces) > 1:
            raise ApiError(
                "encoder_unavailable", "Lambda was changed meanwhile.", retry_after_seconds=1
            )
        return next(iter(spaces), index_space(self.parts.tagger.space, self.parts))

    async def _stored(self, video_id: str, space: Space, *, param: str) -> Vector:
        """The direction of the mean of a stored video's segments."""
        param = f"{param}.video_id"
        index = self.parts.index
        is_ours = is_id(video_id, prefix="vid")
        there = await index.embeddings([video_id], space=space) if is_ours else {}
        if video_id in there:
            return _unit(there[video_id].mean(axis=0), param=param)
        video = await index.get(video_id) if is_ours else None
        if video is None:
            raise ApiError("video_not_found", "There is no video with this id.", param=param)
        raise ApiError(
            "index_lambda_mismatch",
            f"This video has no vectors in {space.id}; it has some in: "
            f"{', '.join(video.spaces) or 'none'}.",
            param=param,
            extra={"wanted": space.id, "spaces": [{"id": name} for name in video.spaces]},
        )


def _weight(source: QuerySource) -> float:
    if not isinstance(source, QueryPart):
        return ADDED_WEIGHT
    if source.subtract:
        return -(SUBTRACTED_WEIGHT if source.weight is None else source.weight)
    return ADDED_WEIGHT if source.weight is None else source.weight


def _given(embedding: Sequence[float], space: Space, *, param: str) -> Vector:
    vector = np.asarray(embedding, np.float32)
    if len(vector) != space.dimensions:
        raise ApiError(
            "invalid_embedding",
            f"The embedding has {len(vector)} numbers, this space has {space.dimensions}.",
            param=f"{param}.embedding",
            limit=space.dimensions,
            actual=len(vector),
        )
    return _unit(vector, param=f"{param}.embedding")


def _unit(vector: Vector, *, param: str) -> Vector:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise ApiError("invalid_embedding", "The embedding has no direction.", param=param)
    return np.asarray(vector / np.float32(length), np.float32)
