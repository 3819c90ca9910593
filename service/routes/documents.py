"""What OpenAPI says about bodies that routes read themselves, and about errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.routes.reindex_shapes import ActivationRequest, ReindexRequest, SpaceChoice
from service.routes.search_shapes import SearchForm, SearchRequest
from service.schemas import (
    ClassifyRequest,
    CollectionRequest,
    EmbeddingsRequest,
    IndexRequest,
    VideoPatch,
)
from service.schemas_jobs import (
    BatchRequest,
    LambdaEvaluationOptions,
    LambdaEvaluationRequest,
    LambdaRequest,
    LongClassifyRequest,
)

Json = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{model}"
_MODELS: Final = (
    *(ClassifyRequest, IndexRequest, SearchRequest, EmbeddingsRequest, LambdaRequest),
    *(LambdaEvaluationRequest, LambdaEvaluationOptions, CollectionRequest, VideoPatch, SearchForm),
    *(ReindexRequest, ActivationRequest, SpaceChoice, BatchRequest, LongClassifyRequest),
)

PROBLEM: Final[dict[int | str, Json]] = {
    "default": {
        "description": "A problem (RFC 9457); `code` is one of `/problems`.",
        "content": {
            "application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}
        },
    }
}
EVENTS: Final[dict[int | str, Json]] = {
    200: {
        "description": "The answer; as events if the client accepts `text/event-stream`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_PROBLEM_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "param": {"type": "string"},
        "limit": {},
        "actual": {},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


_IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A request that is sent again under its key gets the answer that was given,"
    " events too (up to a MiB, for VTAG_IDEMPOTENCY_SECONDS). While the first is worked on: 409."
    " Another body, query or form of answer under the key: 422.",
    "schema": {"type": "string", "pattern": "^[!#-~]{1,255}$"},
}


def json_request(model: type[BaseModel], *, required: bool = True) -> Json:
    """Describe a route that takes ``model`` as JSON."""
    return {"requestBody": {"required": required, "content": {"application/json": _schema(model)}}}


def patch_request(model: type[BaseModel]) -> Json:
    """Describe a route that takes ``model`` as a merge patch (RFC 7396)."""
    kinds = ("application/merge-patch+json", "application/json")
    content = {kind: _schema(model) for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def video_request(model: type[BaseModel], *, fields: Json, required: list[str]) -> Json:
    """Describe a route that takes ``model`` as JSON, or a form with the video as a file."""
    form = {
        "type": "object",
        "description": "Every other option of the JSON body is a field of its name; or one field"
        " `request` holds the JSON.",
        "required": ["video", *required],
        "properties": {"video": {"type": "string", "format": "binary"}, **fields},
    }
    body = json_request(model)
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def search_request() -> Json:
    """Describe ``POST /search``: JSON, or a form with pictures and videos to search with."""
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "description": "Options are fields of their names, `filter` as JSON; or one field"
        " `request` holds them as JSON. Files called `image` and `video` are parts of the query;"
        " a query can name others.",
        "properties": {
            "image": binary,
            "video": binary,
            "query": {"type": "string"},
            "collection": {"type": "string"},
            "filter": {"type": "string", "description": "JSON of a `SearchFilter`"},
            "request": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": _schema(SearchForm)["schema"],
            },
        },
    }
    body = json_request(SearchRequest)
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def evaluation_request() -> Json:
    """Describe ``POST /lambda/evaluate``: JSON, or a form with an archive or with videos."""
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "description": "`archive`, or `video` files with `labels`. Options (see"
        " `LambdaEvaluationOptions`) are fields of their names; or one field `request` holds them"
        " as JSON.",
        "properties": {
            "archive": {**binary, "description": "zip, tar or tar.gz"},
            "video": {"type": "array", "items": binary},
            "labels": {
                "type": "string",
                "description": "of the videos: a JSON array in their order, a JSON object by file"
                " name, or CSV with the columns path and label",
            },
            "lambdas": {"type": "array", "items": {"type": "number"}},
            "webhook": {"type": "object", "description": "url and events, as JSON"},
            "classes": {"type": "array", "items": {"type": "string"}},
            "rule": {"type": "string", "description": "JSON of a `LambdaRule`"},
            "request": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": _schema(LambdaEvaluationOptions)["schema"],
            },
        },
    }
    body = json_request(LambdaEvaluationRequest)
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def _schema(model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def install(app: FastAPI) -> None:
    """Make ``app.openapi`` hold the schemas that the routes above refer to."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, found = models_json_schema(
                [(model, "validation") for model in _MODELS], ref_template=_REFERENCE
            )
            for operations in document["paths"].values():
                if "post" in operations:
                    operations["post"].setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in {**found["$defs"], "Problem": _PROBLEM_SCHEMA}.items():
                schemas.setdefault(name, schema)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
