"""``POST /embeddings``: vectors of texts or videos, in the shape of OpenAI's, less token counts."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request

from service.encode.space import EmbeddingSpace
from service.errors import ApiError
from service.routes.answers import model_answer, require_model, seconds_allowed, warned
from service.routes.body import json_body, spool_source
from service.routes.client import attended
from service.routes.documents import json_request
from service.routes.parts import Parts, Ready
from service.schemas import EmbeddingsRequest, VideoSource
from service.videoclip.errors import VideoWarning

router = APIRouter(tags=["embeddings"])

Vectors = list[npt.NDArray[np.float32]]


@router.post(
    "/embeddings", summary="Embed texts or videos", openapi_extra=json_request(EmbeddingsRequest)
)
async def embeddings(request: Request, parts: Ready) -> dict[str, Any]:
    """Unit vectors of the embedding space that is served, or of the ``lambda`` that is asked for.

    The space is named in the answer; a search with the vectors has to name its lambda, too.
    """
    most = parts.settings.max_json_bytes  # it may hold videos
    options = await json_body(request, parts, EmbeddingsRequest, max_bytes=most)
    require_model(options.model, parts)
    size = parts.tagger.manifest.embedding_size
    if options.dimensions not in (None, size):
        raise ApiError(
            "invalid_request",
            f"This model has {size} dimensions; they cannot be cut.",
            param="dimensions",
            limit=size,
            actual=options.dimensions,
        )
    inputs = options.input if isinstance(options.input, list) else [options.input]
    if len(inputs) > parts.settings.max_inputs:
        raise ApiError(
            "invalid_request",
            f"{len(inputs)} inputs are more than {parts.settings.max_inputs}.",
            param="input",
            limit=parts.settings.max_inputs,
            actual=len(inputs),
        )
    seconds = seconds_allowed(request, None, parts)
    with parts.admission.enter("video" if options.modality == "video" else "text", seconds=seconds):
        vectors, space, warnings = await attended(
            request,
            _embed(parts, options, inputs, deadline=time.monotonic() + seconds),
            seconds=seconds,
        )
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, options)}
            for index, vector in enumerate(vectors)
        ],
        "model": space.name,
        "space": model_answer(space).model_dump(by_alias=True, exclude_none=True),
        "warnings": [item.model_dump() for item in warned(warnings)],
    }


async def _embed(
    parts: Parts, options: EmbeddingsRequest, inputs: list[str | VideoSource], *, deadline: float
) -> tuple[Vectors, EmbeddingSpace, tuple[VideoWarning, ...]]:
    if options.modality == "text":
        texts = [item for item in inputs if isinstance(item, str)]
        if len(texts) != len(inputs):
            raise ApiError("invalid_request", "Modality text takes texts.", param="input")
        found = await parts.tagger.embed_texts(
            texts,
            templates=options.templates,
            clip_weight=options.clip_weight,
            deadline=deadline,
        )
        return list(found.vectors), found.space, found.warnings
    vectors: Vectors = []
    warnings: tuple[VideoWarning, ...] = ()
    encoder = parts.tagger.videos
    weight = encoder.weight(options.clip_weight)
    async with encoder.weights(weight):  # all of one space, whatever is served meanwhile
        for index, item in enumerate(inputs):
            if isinstance(item, str):
                raise ApiError(
                    "invalid_request",
                    'Modality video takes objects like {"type": "base64", "data": "…"}.',
                    param=f"input.{index}",
                )
            async with parts.spool.file() as file:
                await spool_source(item, file, fetcher=parts.fetcher, param=f"input.{index}")
                file.close()
                video = await encoder.embed_video(file.path, clip_weight=weight, deadline=deadline)
            vectors.append(video.vector)
            warnings += video.warnings
    return vectors, video.space, warnings


def _encoded(vector: npt.NDArray[np.float32], options: EmbeddingsRequest) -> list[float] | str:
    if options.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
