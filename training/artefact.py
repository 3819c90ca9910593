"""Write everything that one artefact consists of into a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from service.videoclip.golden import golden_bytes
from service.videoclip.manifest import (
    GOLDEN_FILE,
    VARIANT_FILES,
    FileEntry,
    LambdaPoint,
    Manifest,
    Preprocessing,
    Sampling,
    VariantName,
    describe_file,
    revision_of,
)
from service.videoclip.tokenizing import Tokenizer
from training.errors import Refusal
from training.export import export
from training.golden import known_outputs
from training.model_card import model_card, without_spread_of_one
from training.models.network import VideoCLIP, build, describe
from training.parity import RealInputs, measure_parity, require_parity
from training.variant_losses import BOUND, LabelledClips, measure_variants
from training.variants import write_variants

WEIGHTS_CLIP = "weights_clip.safetensors"
WEIGHTS_TUNED = "weights_tuned.safetensors"
_CARD = "MODEL_CARD.md"
_NO_REVISION = "0" * 12


class DescriptionError(Refusal):
    """A description, a tokenizer and weights that are not of one model; names what differs."""


@dataclass(frozen=True)
class Description:
    """What the manifest says that the weights do not. Field by field as in `Manifest`.

    card: paragraphs of Markdown for MODEL_CARD.md, what the model can and cannot do.
    """

    name: str
    recipe: str
    architecture: Mapping[str, Any]
    sampling: Sampling
    preprocessing: Preprocessing
    tokenizer_json: str
    template_set: str
    licence: str
    pooling: Literal["normalize_then_mean", "mean_then_normalize"] = "normalize_then_mean"
    default_clip_weight: float = 0.5
    clip_weight_rule: str = "not measured"
    curve: tuple[LambdaPoint, ...] = ()
    background_labels: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""


def write_artefact(
    folder: Path,
    description: Description,
    *,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    real_clips: NDArray[np.float32] | None,
    real_texts: tuple[str, ...],
    evaluation_sets: Mapping[str, LabelledClips] | None = None,
    variants: Sequence[VariantName] = tuple(VARIANT_FILES),
    variant_bound: float = BOUND,
) -> Manifest:
    """Fill an empty folder with weights, graphs, tokenizer, card and manifest.

    Arguments and errors as of `training.publish.publish`.
    """
    architecture = describe(description.architecture)
    network = build(architecture)
    _require_alike(network.state_dict(), clip=clip, tuned=tuned)
    if description.preprocessing.image_size != network.image_size:
        raise DescriptionError(
            f"preprocessing.image_size: {description.preprocessing.image_size}, but the network "
            f"takes {network.image_size}"
        )
    _save(clip, folder / WEIGHTS_CLIP)
    _save(tuned, folder / WEIGHTS_TUNED)
    tokenizer = _write_tokenizer(folder / "tokenizer.json", description, network=network)
    frames_per_clip = description.sampling.frames
    export(network, folder, frames_per_clip=frames_per_clip)
    # Compared is what was written: weight files and graphs, as the service will read them.
    stored_clip, stored_tuned = load_file(folder / WEIGHTS_CLIP), load_file(folder / WEIGHTS_TUNED)
    parity = measure_parity(
        network,
        folder,
        clip=stored_clip,
        tuned=stored_tuned,
        frames_per_clip=frames_per_clip,
        real=RealInputs(
            clips=real_clips,
            token_ids=tokenizer.encode(list(real_texts))[0] if real_texts else None,
        ),
    )
    require_parity(parity)
    manifest = Manifest(
        name=description.name,
        revision=_NO_REVISION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=description.recipe,
        architecture=architecture,
        embedding_size=network.embedding_size,
        frames_per_clip=frames_per_clip,
        sampling=description.sampling,
        preprocessing=description.preprocessing,
        pooling=description.pooling,
        template_set=description.template_set,
        logit_scale=_logit_scale(clip, tuned, clip_weight=description.default_clip_weight),
        context_length=network.context_length,
        text_tower_tuned=_text_tower_differs(clip, tuned),
        default_clip_weight=round(description.default_clip_weight, 4),
        clip_weight_rule=description.clip_weight_rule,
        curve=without_spread_of_one(description.curve),
        background_labels=description.background_labels,
        files=_entries(folder),
        licence=description.licence,
        provenance=dict(description.provenance),
        parity=parity,
    )
    manifest = _write_manifest(folder, manifest, card=description.card)
    if evaluation_sets is not None:
        manifest = _add_variants(
            folder,
            manifest,
            evaluation_sets=evaluation_sets,
            names=variants,
            bound=variant_bound,
            card=description.card,
        )
    golden = known_outputs(network, folder, manifest, clip=stored_clip, tuned=stored_tuned)
    (folder / GOLDEN_FILE).write_bytes(golden_bytes(golden))
    return _write_manifest(
        folder,
        manifest.model_copy(update={"files": _entries(folder)}),
        card=description.card,
    )


def _add_variants(
    folder: Path,
    manifest: Manifest,
    *,
    evaluation_sets: Mapping[str, LabelledClips],
    names: Sequence[VariantName],
    bound: float,
    card: str,
) -> Manifest:
    """Keep the graphs in fewer bits that lose little, and name them in the manifest."""
    write_variants(folder, names)
    variants = measure_variants(folder, manifest, evaluation_sets, names=names, bound=bound)
    for name in set(names) - {variant.name for variant in variants}:
        for file in VARIANT_FILES[name]:
            (folder / file).unlink()
    return _write_manifest(
        folder,
        manifest.model_copy(update={"variants": variants, "files": _entries(folder)}),
        card=card,
    )


def _write_manifest(folder: Path, manifest: Manifest, *, card: str) -> Manifest:
    """Write card and manifest, with the revision that the files of `manifest` make."""
    files = {name: entry for name, entry in manifest.files.items() if name != _CARD}
    revision = revision_of(
        files,
        sampling=manifest.sampling,
        preprocessing=manifest.preprocessing,
        pooling=manifest.pooling,
    )
    manifest = manifest.model_copy(update={"revision": revision, "files": files})
    path = folder / _CARD
    path.write_text(model_card(manifest, text=card), encoding="utf-8")
    manifest = manifest.model_copy(update={"files": {**files, _CARD: describe_file(path)}})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return manifest


def _entries(folder: Path) -> dict[str, FileEntry]:
    """Every file of the artefact but card and manifest, which are written last."""
    return {
        path.name: describe_file(path)
        for path in sorted(folder.iterdir())
        if path.name not in (_CARD, "manifest.json")
    }


def _write_tokenizer(path: Path, description: Description, *, network: VideoCLIP) -> Tokenizer:
    path.write_text(description.tokenizer_json, encoding="utf-8")
    tokenizer = Tokenizer(path, network.context_length)
    if tokenizer.vocabulary_size > network.vocabulary_size:
        raise DescriptionError(
            f"tokenizer: {tokenizer.vocabulary_size} ids, but the network has "
            f"{network.vocabulary_size}"
        )
    return tokenizer


def _text_tower_differs(clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> bool:
    text = [n for n in clip if not n.startswith("visual.") and n != "logit_scale"]
    return not all(torch.equal(clip[n], tuned[n]) for n in text)


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    arrays = {n: np.array(t.detach().cpu().float().numpy(), order="C") for n, t in weights.items()}
    save_file(arrays, path)
    path.chmod(0o644)  # safetensors leaves it to its owner alone


def _require_alike(
    expected: Mapping[str, Tensor], *, clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor]
) -> None:
    for where, weights in (("clip", clip), ("tuned", tuned)):
        wrong = sorted(set(weights) ^ set(expected)) + [
            f"{n} {tuple(weights[n].shape)} instead of {tuple(expected[n].shape)}"
            for n in expected
            if n in weights and weights[n].shape != expected[n].shape
        ]
        if wrong:
            raise DescriptionError(
                f"{where}: not the weights of this architecture: {', '.join(wrong)}"
            )
        broken = [n for n, t in weights.items() if not bool(torch.isfinite(t).all())]
        if broken:
            raise DescriptionError(f"{where}: values that are not finite in {', '.join(broken)}")


def _logit_scale(
    clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, clip_weight: float
) -> float:
    stored = torch.lerp(tuned["logit_scale"].float(), clip["logit_scale"].float(), clip_weight)
    return float(stored.exp())
