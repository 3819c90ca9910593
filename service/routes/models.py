"""``GET /models`` and ``GET /version``: what could be served, what is, and by which software."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import av
from fastapi import APIRouter

from service.routes.parts import Parts, Ready
from service.store import StoredArtefact

router = APIRouter(tags=["models"])


@router.get("/models", summary="Artefacts of the model store")
async def models(parts: Ready) -> dict[str, Any]:
    """Every artefact, and which one is served; a damaged one has status ``broken`` and a reason."""
    found = await asyncio.to_thread(parts.store.list)
    return {"object": "list", "data": [_entry(artefact, parts) for artefact in found]}


def _entry(artefact: StoredArtefact, parts: Parts) -> dict[str, Any]:
    entry = {"id": artefact.name, "object": "model", "revision": artefact.revision}
    manifest = artefact.manifest
    if manifest is None:
        return {**entry, "status": "broken", "reason": artefact.fault}
    space = parts.tagger.space
    is_served = (manifest.name, manifest.revision) == (space.name, space.revision)
    return {
        **entry,
        "status": "served" if is_served else "available",
        "recipe": manifest.recipe,
        "embedding_size": manifest.embedding_size,
        "image_size": manifest.preprocessing.image_size,
        "frames_per_clip": manifest.frames_per_clip,
        "runtime": parts.settings.runtime if is_served else None,
        "device": parts.settings.device if is_served else None,
        "dtype": "+".join(artefact.number_types),
        "lambdas": {
            "default": manifest.default_clip_weight,
            "grid": [point.clip_weight for point in manifest.curve],
            "resident": [space.clip_weight] if is_served else [],
        },
        "license": manifest.licence,
        "created_at": manifest.created_at,
    }


@router.get("/version", summary="Versions of the service and its decoder")
async def versions() -> dict[str, Any]:
    """For reports of faults, and for audits: which FFmpeg decodes here."""
    return {
        "vtag": version("vtag"),
        "pyav": version("av"),
        "ffmpeg": {
            name: ".".join(map(str, number)) for name, number in av.library_versions.items()
        },
    }
