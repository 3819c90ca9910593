"""Checkpoints of others, one format a module, and what turns one into an artefact."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from service.videoclip.manifest import Sampling
from service.videoclip.prompts import TEMPLATES
from training.artefact import Description
from training.artefact_name import require_name
from training.conversion import Account, require_descent
from training.foreign_model import ForeignModel, ImportRefused, Options
from training.importers import fitclip, open_vclip, plain_clip, text4vis, vifi_clip
from training.models.endpoints import clip_end
from training.models.temporal_heads import POSITIONS
from training.provenance import commit
from training.start import Start
from training.weights import digest

FORMATS: dict[str, Callable[[Path, Start], ForeignModel]] = {
    "open_vclip": open_vclip.convert,
    "vifi_clip": vifi_clip.convert,
    "fitclip": fitclip.convert,
    "text4vis": text4vis.convert,
    "plain_clip": plain_clip.convert,
}


@dataclass(frozen=True)
class Imported:
    """A description to publish, both ends of λ, and what became of every weight of the file."""

    description: Description
    clip: dict[str, Tensor]
    tuned: dict[str, Tensor]
    account: Account
    distance_from_clip: float


def import_checkpoint(
    format_name: str, path: Path, *, original: Start, options: Options
) -> Imported:
    """Read a checkpoint of the named format, with everything that its artefact needs.

    original: CLIP, the one that the checkpoint was tuned from. Raises WeightsError for a file that
    cannot be read, does not fit, or was not tuned from this CLIP, and another Refusal for options.
    """
    if format_name not in FORMATS:
        raise ImportRefused(f"{format_name}: no known format; known: {', '.join(FORMATS)}")
    manifest = original.manifest
    name = options.name or f"{format_name.replace('_', '-')}-{manifest.name}"
    _check(options, name=name, format_name=format_name)
    model = FORMATS[format_name](path, original)
    found = model.converted
    architecture = dict(found.architecture)
    if options.temporal is not None:
        architecture["temporal"] = options.temporal
    sampling = _sampling(model.sampling, options)
    if options.frames is None and model.frames_from != "format":
        source = {"name": "from the file's name", "nothing": "not in the file"}[model.frames_from]
        found.account.notes.append(f"frames: {sampling.frames}, {source}; --frames sets it")
    if architecture.get("temporal_head") == "t-trans" and sampling.frames > POSITIONS:
        raise ImportRefused(
            f"--frames {sampling.frames}: T-Trans has positions for {POSITIONS} frames"
        )
    distance = require_descent(original.weights, found.weights, where=str(path))
    clip = clip_end(architecture, original.weights, found.weights)
    chosen = options.clip_weight
    return Imported(
        description=Description(
            name=name,
            recipe=model.recipe,
            architecture=architecture,
            sampling=sampling,
            preprocessing=model.preprocessing,
            tokenizer_json=original.tokenizer_json,
            template_set=options.template_set or model.template_set,
            licence=options.licence or model.licence,
            pooling=model.pooling,
            default_clip_weight=model.clip_weight if chosen is None else chosen,
            clip_weight_rule=model.clip_weight_rule if chosen is None else "set when imported",
            provenance={
                "imported_from": {
                    "format": format_name,
                    "file": path.name,
                    "sha256": digest(path),
                    "section": found.section,
                    "left_out": found.account.left_out,
                    "taken_from_clip": found.account.from_clip,
                    "not_looked_at": list(found.account.beside),
                    "notes": list(found.account.notes),
                },
                "clip": {"name": manifest.name, "revision": manifest.revision},
                "distance_from_clip": round(distance, 6),
                "git_commit": commit(),
            },
            card="\n\n".join((model.card, *_account(found.account))),
        ),
        clip=clip,
        tuned=dict(found.weights),
        account=found.account,
        distance_from_clip=distance,
    )


def _account(account: Account) -> list[str]:
    lines = account.lines()
    return ["When it was imported:\n\n" + "\n".join(f"- {line}" for line in lines)] if lines else []


def _check(options: Options, *, name: str, format_name: str) -> None:
    require_name(name, where="--name")
    if options.temporal is not None and format_name != "plain_clip":
        raise ImportRefused(f"--temporal: {format_name} leaves no choice")
    weight, templates = options.clip_weight, options.template_set
    if weight is not None and not 0.0 <= weight <= 1.0:
        raise ImportRefused(f"--clip-weight {weight:g}: not within 0 and 1")
    if templates is not None and templates not in TEMPLATES:
        raise ImportRefused(f"--templates {templates}: one of {', '.join(sorted(TEMPLATES))}")


def _sampling(published: Sampling, options: Options) -> Sampling:
    given = {"frames": options.frames, "views": options.views}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return Sampling.model_validate({**published.model_dump(), **fields})
    except ValidationError as error:
        flags = " ".join(f"--{name} {value}" for name, value in fields.items())
        raise ImportRefused(f"{flags}: {error.errors(include_url=False)[0]['msg']}") from error
