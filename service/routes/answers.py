"""From the domain's values to the shapes of answers."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from service.encode.space import EmbeddingSpace
from service.errors import ApiError
from service.index.video_index import Space, StoredVideo
from service.routes.parts import Parts
from service.routes.shapes import ModelAnswer, StoredVideoAnswer, Warned
from service.videoclip.errors import VideoWarning


def model_answer(space: EmbeddingSpace) -> ModelAnswer:
    """Which weights made an answer."""
    return ModelAnswer(
        id=space.name,
        revision=space.revision,
        clip_weight=space.clip_weight,
        space=space.id,
        decoder=f"pyav-{version('av')}",
    )


def warned(warnings: Iterable[VideoWarning]) -> list[Warned]:
    """Warnings, each once."""
    return [Warned(code=item.code, detail=item.detail) for item in dict.fromkeys(warnings)]


def etag(video: StoredVideo) -> str:
    """Strong validator of a stored video (RFC 9110, section 8.8.3)."""
    return f'"{video.id}.{video.version}"'


def stored_answer(video: StoredVideo, warnings: Iterable[VideoWarning] = ()) -> StoredVideoAnswer:
    """A video of the index."""
    return StoredVideoAnswer(
        id=video.id,
        external_id=video.external_id,
        metadata=dict(video.metadata),
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        duration=video.duration_seconds,
        fps=video.fps,
        width=video.width,
        height=video.height,
        codec=video.codec,
        segments=video.segments,
        spaces=list(video.spaces),
        created_at=video.created_at.isoformat().replace("+00:00", "Z"),
        etag=etag(video),
        warnings=warned(warnings),
    )


def index_space(space: EmbeddingSpace, parts: Parts) -> Space:
    """The index's own name for an embedding space."""
    return Space(
        space.name, space.revision, space.clip_weight, parts.tagger.manifest.embedding_size
    )


def require_model(name: str | None, parts: Parts) -> None:
    """Refuse a request for another model than the one that is served.

    Raises:
        ApiError: ``model_not_served``.
    """
    manifest = parts.tagger.manifest
    served = (manifest.name, f"{manifest.name}@{manifest.revision}")
    if name is not None and name not in served:
        raise ApiError(
            "model_not_served",
            f"This service serves {served[1]}.",
            param="model",
            limit=list(served),
            actual=name,
        )


def seconds_allowed(asked: float | None, parts: Parts) -> float:
    """How long the work on one request may take."""
    most = parts.settings.request_timeout_seconds
    return most if asked is None else min(asked, most)
