"""From the domain's values to the shapes of answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request

from service.encode.space import EmbeddingSpace
from service.errors import ApiError
from service.index.video_index import Space, SpaceContent, StoredVideo
from service.routes.client import TimeLimit
from service.routes.parts import Parts
from service.routes.shapes import ModelAnswer, StoredVideoAnswer, TagAnswer, Warned
from service.tags import Tag
from service.videoclip.errors import VideoWarning

_WAIT_DIGITS = 9
_TAGS = TypeAdapter(list[TagAnswer])


def model_answer(space: EmbeddingSpace) -> ModelAnswer:
    """Which weights made an answer."""
    return ModelAnswer(
        id=space.name,
        revision=space.revision,
        clip_weight=space.clip_weight,
        space=space.id,
        precision=space.precision,
        decoder=_decoder(),
    )


@cache
def _decoder() -> str:
    """What decodes; its version is read from files of the installation."""
    return f"pyav-{version('av')}"


def warned(warnings: Iterable[VideoWarning]) -> list[Warned]:
    """Warnings, each once."""
    return [Warned(code=item.code, detail=item.detail) for item in dict.fromkeys(warnings)]


def tag_answers(tags: Sequence[Tag]) -> list[TagAnswer]:
    """Labels with their scores; in one call, since there may be thousands."""
    return _TAGS.validate_python(tags, from_attributes=True)


def etag(video: StoredVideo) -> str:
    """Strong validator of a stored video (RFC 9110, section 8.8.3)."""
    return f'"{video.id}.{video.version}"'


def stored_answer(video: StoredVideo, warnings: Iterable[VideoWarning] = ()) -> StoredVideoAnswer:
    """A video of the index."""
    return StoredVideoAnswer(
        id=video.id,
        collection=video.collection,
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


def spaces_there(contents: Sequence[SpaceContent]) -> list[dict[str, Any]]:
    """What a problem names of a collection: the spaces that it holds vectors of."""
    return [
        {
            "id": content.space.id,
            "model": content.space.name,
            "revision": content.space.revision,
            "lambda": content.space.clip_weight,
            "videos": content.videos,
        }
        for content in contents
    ]


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


def seconds_allowed(request: Request, asked: float | None, parts: Parts) -> float:
    """How long the work on one request may take: the least of the three that may say so.

    The setting and `asked` (``timeout_s``) count from now on, ``Prefer: wait=N`` (RFC 7240) from
    the arrival of the request.

    Raises:
        ApiError: ``deadline_exceeded``: nothing is left.
    """
    most = parts.settings.request_timeout_seconds
    limit = TimeLimit(most, "is VTAG_REQUEST_TIMEOUT_SECONDS of this service", None)
    if asked is not None and asked < most:
        limit = TimeLimit(asked, "is timeout_s of the request", "timeout_s")
    seconds = limit.seconds
    wait = preferred_wait(request)
    if wait is not None:
        arrived: float = request.state.arrived
        left = wait - (time.monotonic() - arrived)
        if left <= 0:
            raise ApiError(
                "deadline_exceeded",
                "The body arrived after the time that Prefer: wait allows.",
                param="Prefer",
                limit=wait,
            )
        if left < seconds:
            seconds, limit = left, TimeLimit(wait, "is the time of Prefer: wait", "Prefer")
    request.state.time_limit = limit
    return seconds


def preferred_wait(request: Request) -> float | None:
    """Seconds that the client is willing to wait; None: it does not say, or not legibly."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition("=")
        value = value.split(";")[0].strip().strip('"')
        if name.strip().lower() == "wait" and value.isdecimal() and len(value) <= _WAIT_DIGITS:
            return float(value)
    return None
