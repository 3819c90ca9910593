"""What OpenAPI says about bodies that routes read themselves, and about errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.schemas import (
    ClassifyRequest,
    EmbeddingsRequest,
    IndexRequest,
    LambdaRequest,
    SearchRequest,
)

Json = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{model}"
_MODELS: Final = (ClassifyRequest, IndexRequest, SearchRequest, EmbeddingsRequest, LambdaRequest)

PROBLEM: Final[dict[int | str, Json]] = {
    "default": {
        "description": "A problem (RFC 9457); `code` is one of `/problems`.",
        "content": {
            "application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}
        },
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


def json_request(model: type[BaseModel]) -> Json:
    """Describe a route that takes ``model`` as JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": _schema(model)}}}


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
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in {**found["$defs"], "Problem": _PROBLEM_SCHEMA}.items():
                schemas.setdefault(name, schema)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
