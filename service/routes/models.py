"""``/models``: what could be served, what is, and serving another; ``/version``: the software."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import av
from fastapi import APIRouter, Request, Response

from service.errors import ApiError
from service.index.space import Space
from service.routes.answers import warned
from service.routes.body import has_body, json_body
from service.routes.documents import json_request
from service.routes.gate import ADMIN_ONLY
from service.routes.parts import Parts, Ready
from service.routes.reindex_shapes import ActivationRequest
from service.routes.reindexing import moving
from service.routes.shapes import ActivationAnswer
from service.store import StoredArtefact
from service.videoclip.calibration import Calibration, Reliability
from service.videoclip.errors import VideoWarning
from service.videoclip.manifest import ArtefactError, Manifest

router = APIRouter(tags=["models"])

_PATH = "/models/{name}/{revision}"


@router.get("/models", summary="Artefacts of the model store")
async def models(parts: Ready) -> dict[str, Any]:
    """Every artefact, and which one is served; a damaged one has status ``broken`` and a reason."""
    found = await asyncio.to_thread(parts.store.list)
    return {"object": "list", "data": [_entry(artefact, parts) for artefact in found]}


@router.get(_PATH, summary="One artefact of the model store")
async def model(name: str, revision: str, parts: Ready) -> dict[str, Any]:
    """All that is known of it: the measured curve, calibration, variants, parity, provenance."""
    found = await _look(parts, name, revision)
    entry = _entry(found, parts)
    return entry if found.manifest is None else entry | _details(found.manifest)


@router.post(
    _PATH + "/activate",
    summary="Serve another artefact",
    dependencies=[ADMIN_ONLY],
    openapi_extra=json_request(ActivationRequest, required=False),
)
async def activate(
    name: str, revision: str, request: Request, parts: Ready, response: Response
) -> ActivationAnswer:
    """Start it beside the one that serves, check it, swap them between two requests.

    Requests that have begun end on the old one. If anything is wrong with the new one, the old
    one serves on. ``active.json`` of the store is rewritten, so that the next start serves it, too.
    ``reindex`` (true, or options) embeds every collection again, as the job that ``jobs`` names:
    until it is complete, searches by text or picture are 409 there: their model is gone.
    """
    options = ActivationRequest()
    if has_body(request):
        options = await json_body(request, parts, ActivationRequest)
    if parts.activation is None:
        raise ApiError("activation_unavailable", "This service cannot serve another artefact.")
    await _look(parts, name, revision)
    async with moving(parts, options.reindex, target=f"{name}@{revision}/") as begin:
        try:
            done = await parts.activation.activate(name, revision, keep=True)
        except ArtefactError as error:
            raise ApiError(
                "artefact_refused",
                f"The old artefact serves on. {error}",
                actual=f"{name}@{revision}",
            ) from error
        space = done.served.tagger.space
        size = done.served.tagger.manifest.embedding_size
        jobs = await begin(Space(space.name, space.revision, space.clip_weight, size))
    response.headers["Content-Location"] = f"/models/{space.name}/{space.revision}"
    detail = "This artefact is served, but active.json could not be written for the next start."
    return ActivationAnswer(
        model=space.name,
        revision=space.revision,
        clip_weight=space.clip_weight,
        space=space.id,
        previous=done.previous,
        changed=done.changed,
        seconds=round(done.seconds, 3),
        jobs=jobs,
        warnings=warned([] if done.kept else [VideoWarning("active_not_kept", detail)]),
    )


async def _look(parts: Parts, name: str, revision: str) -> StoredArtefact:
    try:
        return await asyncio.to_thread(parts.store.look, name, revision)
    except ArtefactError:
        raise ApiError("model_not_found", "The store has no such artefact.") from None


def _entry(artefact: StoredArtefact, parts: Parts) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": artefact.name,
        "object": "model",
        "revision": artefact.revision,
        "status": _status(artefact, parts),
    }
    reason = artefact.fault
    if reason is None and parts.activation is not None and entry["status"] != "served":
        reason = parts.activation.refusal(artefact.name, artefact.revision)
    if reason is not None:
        entry["reason"] = reason
    manifest = artefact.manifest
    if manifest is None:
        return entry
    is_served = entry["status"] == "served"
    return {
        **entry,
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
            "resident": list(parts.tagger.resident_clip_weights) if is_served else [],
        },
        "calibration": None if manifest.calibration is None else _calibration(manifest.calibration),
        "license": manifest.licence,
        "created_at": manifest.created_at,
    }


def _status(artefact: StoredArtefact, parts: Parts) -> str:
    """What is loaded serves on, whatever became of its folder; a reason then says so."""
    space = parts.tagger.space
    name = f"{artefact.name}@{artefact.revision}"
    if (artefact.name, artefact.revision) == (space.name, space.revision):
        return "served"
    if parts.activation is not None and parts.activation.running == name:
        return "activating"
    return "available" if artefact.fault is None else "broken"


def _calibration(fitted: Calibration) -> dict[str, Any]:
    """How far independent scores are from frequencies, before and after the fit, at each lambda."""
    return {
        "method": fitted.method,
        "videos": fitted.videos,
        "labels": fitted.labels,
        "pairs": fitted.pairs,
        "true_pairs": fitted.true_pairs,
        "template_set": fitted.template_set,
        "points": [
            {
                "lambda": point.clip_weight,
                "before": _reliability(point.before),
                "after": _reliability(point.after),
            }
            for point in fitted.points
        ],
    }


def _reliability(found: Reliability) -> dict[str, float]:
    return {"ece": found.ece, "log_loss": found.log_loss}


def _details(manifest: Manifest) -> dict[str, Any]:
    whole = manifest.model_dump(mode="json", by_alias=True)
    names = ("architecture", "sampling", "preprocessing", "pooling", "template_set", "provenance")
    return {
        **{name: whole[name] for name in names},
        "text_tower_tuned": manifest.text_tower_tuned,
        "context_length": manifest.context_length,
        "lambda_rule": manifest.clip_weight_rule,
        "curve": [
            {"lambda": point.clip_weight, "scores": point.scores, "spread": point.spread}
            for point in manifest.curve
        ],
        "variants": [variant.model_dump(mode="json") for variant in manifest.variants],
        "parity": [found.model_dump(mode="json") for found in manifest.parity],
        "reliability": None
        if manifest.calibration is None
        else [
            {
                "lambda": point.clip_weight,
                "before": [each.model_dump(mode="json") for each in point.before.bins],
                "after": [each.model_dump(mode="json") for each in point.after.bins],
            }
            for point in manifest.calibration.points
        ],
        "files": {name: entry.model_dump(mode="json") for name, entry in manifest.files.items()},
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
