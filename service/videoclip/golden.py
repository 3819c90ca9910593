"""Known inputs, and what an artefact's network gave for them when it was published.

Whoever publishes and whoever serves makes the same inputs from the manifest, so only outputs are
stored: `golden.safetensors` holds, at λ = 0, the default λ and λ = 1, what the network that was
exported gave, and how far each variant in fewer bits is from it. A graph, weights or a runtime
that compute something else are found out by it, however consistently they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.videoclip.manifest import GOLDEN_FILE, ArtefactError, Manifest

Floats = NDArray[np.float32]

#: Which known inputs: artefacts keep their outputs, so these inputs never change under a number.
KNOWN_INPUTS: Final = "1"
_KEY: Final = "known_inputs"
_ERROR: Final = "error"


def known_clip(*, frames: int, image_size: int) -> Floats:
    """The known clip, float32 (1, T, 3, S, S), normalised.

    A ramp over the picture that grows with time and from colour to colour: turned, reversed or
    with its colours exchanged it is another clip.
    """
    pixels = image_size * image_size
    ramp = np.linspace(-2.0, 2.0, pixels, dtype=np.float32).reshape(image_size, image_size)
    colour = np.array([-0.25, 0.0, 0.25], np.float32)[:, None, None]
    time = np.linspace(0.0, 0.5, frames, dtype=np.float32)[:, None, None, None]
    return np.ascontiguousarray((ramp + colour + time)[None])


def known_text(*, context_length: int) -> NDArray[np.int64]:
    """The known text, int64 (1, L); its largest id stands for the end of the text."""
    return np.arange(min(8, context_length), dtype=np.int64)[None]


def golden_weights(default_clip_weight: float) -> tuple[float, ...]:
    """The λ at which outputs are stored: both ends and the default, rising."""
    return tuple(sorted({0.0, round(default_clip_weight, 4), 1.0}))


@dataclass(frozen=True, eq=False)
class Outputs:
    """Of one λ, not normalised. video: float32 (T, D). text: float32 (D,)."""

    video: Floats
    text: Floats


@dataclass(frozen=True)
class VariantError:
    """Largest error of a variant over all λ, as a share of the largest output."""

    video: float
    text: float


@dataclass(frozen=True, eq=False)
class GoldenOutputs:
    """What is stored. outputs: by λ. errors: by the name of a variant."""

    outputs: Mapping[float, Outputs]
    errors: Mapping[str, VariantError] = field(default_factory=dict)


def golden_bytes(golden: GoldenOutputs) -> bytes:
    """The file's content: equal outputs, equal bytes."""
    from safetensors.numpy import save

    arrays = {}
    for clip_weight, outputs in golden.outputs.items():
        arrays[f"video/{clip_weight:g}"] = outputs.video
        arrays[f"text/{clip_weight:g}"] = outputs.text
    for name, error in golden.errors.items():
        arrays[f"{_ERROR}/{name}"] = np.array([error.video, error.text], np.float32)
    content: bytes = save(arrays, metadata={_KEY: KNOWN_INPUTS})
    return content


def read_golden(folder: Path, manifest: Manifest) -> GoldenOutputs | None:
    """What `folder` says that its network gives; None for an artefact that does not say it.

    Raises:
        ArtefactError: the file is broken, was made with other known inputs, or is not of an
            artefact with this manifest. One line.
    """
    if GOLDEN_FILE not in manifest.files:
        return None
    arrays = _arrays(folder / GOLDEN_FILE)
    frames, width = manifest.frames_per_clip, manifest.embedding_size
    outputs = {}
    for clip_weight in golden_weights(manifest.default_clip_weight):
        video = _finite(arrays, f"video/{clip_weight:g}", shape=(frames, width))
        text = _finite(arrays, f"text/{clip_weight:g}", shape=(width,))
        outputs[clip_weight] = Outputs(video, text)
    errors: dict[str, VariantError] = {}
    for variant in manifest.variants:
        error = _finite(arrays, f"{_ERROR}/{variant.name}", shape=(2,))
        errors[variant.name] = VariantError(float(error[0]), float(error[1]))
    return GoldenOutputs(outputs, errors)


def _arrays(path: Path) -> dict[str, Floats]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stream:
            inputs = (stream.metadata() or {}).get(_KEY)
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtefactError(path.name, expected="a safetensors file", found=str(error)) from error
    if inputs != KNOWN_INPUTS:
        raise ArtefactError(path.name, expected=f"known inputs {KNOWN_INPUTS}", found=str(inputs))
    return arrays


def _finite(arrays: Mapping[str, Floats], name: str, *, shape: tuple[int, ...]) -> Floats:
    array = arrays.get(name)
    if array is None:
        raise ArtefactError(GOLDEN_FILE, expected=name, found="none")
    if array.dtype != np.float32 or array.shape != shape:
        raise ArtefactError(
            GOLDEN_FILE,
            expected=f"{name} as float32 {shape}",
            found=f"{array.dtype} {array.shape}",
        )
    if not np.isfinite(array).all():
        raise ArtefactError(GOLDEN_FILE, expected=f"finite {name}", found="other values")
    return array
