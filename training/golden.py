"""Known outputs of an artefact: measured on the network that was exported, proved on its graphs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from service.videoclip.golden import (
    GoldenOutputs,
    Outputs,
    VariantError,
    golden_bytes,
    golden_weights,
    known_clip,
    known_text,
)
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import GOLDEN_FILE, Manifest
from training.errors import Refusal
from training.graphs import Weights, load_graph
from training.models.network import VideoCLIP, build
from training.opened_artefact import open_artefact
from training.parity import GRAPHS, TOLERANCE, ParityError
from training.rewrite_manifest import add_file

Tower = Literal["video", "text"]
Inputs = Mapping[Tower, NDArray[Any]]


def known_outputs(
    network: VideoCLIP, folder: Path, manifest: Manifest, *, clip: Weights, tuned: Weights
) -> GoldenOutputs:
    """What the network gives for the known clip and text, and how far its graphs are from it.

    folder: with the graphs; of the full ones those that are there are compared, of the others the
    manifest's variants. clip, tuned: whole state dicts as arrays. The network is left at λ = 0.
    Raises ParityError when a full graph gives something else than the network.
    """
    inputs: Inputs = {
        "video": known_clip(frames=manifest.frames_per_clip, image_size=network.image_size),
        "text": known_text(context_length=network.context_length),
    }
    outputs = {}
    # 0 comes last, so that the network ends as the tuned model.
    for clip_weight in sorted(golden_weights(manifest.default_clip_weight), reverse=True):
        weights = interpolate(clip, tuned, clip_weight=clip_weight)
        network.load_state_dict({n: torch.tensor(a) for n, a in weights.items()}, strict=True)
        with torch.no_grad():
            video = network.encode_frames(torch.from_numpy(inputs["video"]))
            text = network.encode_text(torch.from_numpy(inputs["text"]))
        outputs[clip_weight] = Outputs(video[0].numpy(), text[0].numpy())
    full = [name for name in GRAPHS if (folder / name).is_file()]
    for name, error in _errors(folder, full, inputs, outputs, clip=clip, tuned=tuned).items():
        if not error <= TOLERANCE:
            raise ParityError(
                f"{name}: relative error {error:.2e} on the known input, above the tolerance of "
                f"{TOLERANCE:.0e}"
            )
    errors: dict[str, VariantError] = {}
    for variant in manifest.variants:
        found = _errors(folder, variant.files, inputs, outputs, clip=clip, tuned=tuned)
        errors[variant.name] = VariantError(*(found[name] for name in variant.files))
    return GoldenOutputs(outputs, errors)


def add_known_outputs(folder: Path) -> Manifest:
    """Give an artefact that was published without them its known outputs; same revision.

    Returns the new manifest. Raises ArtefactError for a damaged artefact, Refusal for one that has
    known outputs, ParityError when its graphs are not of its network.
    """
    manifest = open_artefact(folder)
    if GOLDEN_FILE in manifest.files:
        raise Refusal(f"{folder / GOLDEN_FILE}: the artefact has known outputs already")
    clip, tuned = (load_file(folder / f"weights_{end}.safetensors") for end in ("clip", "tuned"))
    golden = known_outputs(build(manifest.architecture), folder, manifest, clip=clip, tuned=tuned)
    return add_file(folder, manifest, name=GOLDEN_FILE, content=golden_bytes(golden))


def _errors(
    folder: Path,
    names: Iterable[str],
    inputs: Inputs,
    outputs: Mapping[float, Outputs],
    *,
    clip: Weights,
    tuned: Weights,
) -> dict[str, float]:
    """Of each graph, the largest error over all λ, as a share of the largest output."""
    found = dict.fromkeys(names, 0.0)
    for clip_weight, right in outputs.items():
        weights = interpolate(clip, tuned, clip_weight=clip_weight)
        for name in found:
            visual = name.startswith("video")
            part = {n: a for n, a in weights.items() if n.startswith("visual.") == visual}
            graph = load_graph(folder / name, part)
            expected = right.video if visual else right.text
            value = graph(inputs["video" if visual else "text"])[0]
            error = float(np.abs(value - expected).max() / np.abs(expected).max())
            found[name] = max(found[name], error)
    return found
