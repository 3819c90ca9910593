"""What an importer finds out about a file: the weights, and how its authors used them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from service.videoclip.manifest import Preprocessing, Sampling
from training.conversion import SCALE, Account, Renamed, complete
from training.errors import Refusal
from training.models.network import Temporal, build
from training.start import Start


class ImportRefused(Refusal):
    """A file or an option that an importer cannot use; one line that says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user may say; None takes what the authors published.

    temporal: whether frames see their neighbours; only plain weights leave that open.
    """

    name: str | None = None
    frames: int | None = None
    views: int | None = None
    template_set: str | None = None
    clip_weight: float | None = None
    licence: str | None = None
    temporal: Temporal | None = None


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The weights of a file, all of them accounted for.

    weights: the whole state dict of `architecture` at λ = 0. section: where in the file it was.
    """

    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    account: Account
    section: str | None


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """One checkpoint in this project's terms; fields as of `training.artefact.Description`.

    frames_from: what tells how many frames a clip has; "nothing" where the authors published files
    with several.
    """

    recipe: str
    converted: Converted
    sampling: Sampling
    preprocessing: Preprocessing
    pooling: Literal["normalize_then_mean", "mean_then_normalize"]
    template_set: str
    clip_weight: float
    clip_weight_rule: str
    licence: str
    card: str
    frames_from: Literal["format", "name", "nothing"] = "format"


def architecture_of(original: Start, **changes: Any) -> dict[str, Any]:
    """CLIP's architecture, frames by themselves, with some changes.

    Raises ImportRefused when the artefact is not of CLIP alone.
    """
    manifest = original.manifest
    architecture = dict(manifest.architecture)
    if architecture.get("prompts") or architecture.get("temporal_head", "none") != "none":
        raise ImportRefused(
            f"--clip: {manifest.name} has prompts or a temporal head; name CLIP itself, as `pull` "
            "publishes it"
        )
    return {**architecture, "temporal": "none", **changes}


def require_quick_gelu(original: Start, *, whose: str) -> None:
    """Raise ImportRefused unless CLIP's activation is QuickGELU.

    All four systems fine-tuned OpenAI's weights. The names and shapes of a CLIP with GELU are the
    same, and nothing but the accuracy would show it.
    """
    if original.manifest.architecture.get("quick_gelu") is not True:
        raise ImportRefused(
            f"--clip: {original.manifest.name} uses GELU, but {whose} fine-tuned OpenAI's CLIP, "
            "which uses QuickGELU; name an artefact that `pull` made of OpenAI's weights"
        )


def names_and_shapes(architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict that a network of this architecture has, without values."""
    with torch.device("meta"):
        return dict(build(architecture).state_dict())


def converted(
    renamed: Renamed,
    architecture: Mapping[str, Any],
    *,
    original: Start,
    from_clip: Mapping[str, Collection[str]],
) -> Converted:
    """The file's weights for this architecture, with CLIP's where the format has none.

    from_clip, and errors: see `training.conversion.complete`.
    """
    weights = complete(
        renamed,
        expected=names_and_shapes(architecture),
        clip=original.weights,
        from_clip=from_clip,
    )
    return Converted(
        architecture=architecture,
        weights=weights,
        account=renamed.account,
        section=renamed.section,
    )


def text_names(original: Start) -> list[str]:
    """Names of CLIP's text tower."""
    return [n for n in original.weights if not n.startswith("visual.") and n != SCALE]


def preprocessing_of(original: Start, **changes: Any) -> Preprocessing:
    """CLIP's own preprocessing with some changes."""
    return Preprocessing.model_validate({**original.preprocessing.model_dump(), **changes})
