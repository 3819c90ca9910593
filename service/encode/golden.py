"""The golden check: a known input, and an output that is right before anyone is answered.

Run after every change of weights, before they serve. The outputs must have the shape that the
manifest says, be finite and not zero, come out again at a second call, and be the same for a clip
alone and for the same clip in a batch. At a λ that this process had before they must be what they
were then: whatever was changed on the disk or went bad in memory meanwhile shows. At a λ for which
the artefact says what its network gave when it was published, they must be that: whatever computes
something else shows, also if it always does.
"""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.encode.device import CPU, Device
from service.encode.runtime import VARIANTS, Network, Precision
from service.videoclip.golden import GoldenOutputs, VariantError, known_clip, known_text
from service.videoclip.manifest import ArtefactError, Manifest

_TOLERANCE: Final[dict[str, float]] = {"float32": 1e-3, "float16": 2e-2, "int8": 5e-2}
"""Of the largest output. Batches of other sizes add up in another order; int8 rounds by batch."""
_TF32: Final = 2e-2
"""The same beside published values, for float32 on CUDA: its products may have the ten bits of
float16 (TF32, NVIDIA's Ampere and later), and what was published was not computed there."""
_FULL: Final = VariantError(0.0, 0.0)


@dataclass(frozen=True)
class Golden:
    """What a network gave for the known input, and how long that took.

    Attributes:
        video: float32 (T, D) of the clip.
        text: float32 (D,) of the text.
        clip_seconds: of one clip, warm.
        text_seconds: of one text, warm.
        text_tokens: tokens of that text.
    """

    video: npt.NDArray[np.float32]
    text: npt.NDArray[np.float32]
    clip_seconds: float
    text_seconds: float
    text_tokens: int


def check(
    network: Network,
    *,
    manifest: Manifest,
    precision: Precision,
    before: Golden | None = None,
    published: GoldenOutputs | None = None,
    device: Device = CPU,
) -> Golden:
    """Warm `network` up, check it, and return what it gave.

    Args:
        network: both towers at one λ.
        manifest: of the artefact.
        precision: what it computes with.
        before: what the network at the same λ gave earlier, if there was one.
        published: what the artefact says of some λ, if it does.
        device: where the network runs.

    Raises:
        ArtefactError: an output is not what it must be; one line.
    """
    clips, ids = _clip(manifest), _text(manifest)
    width = manifest.embedding_size
    tolerance = _TOLERANCE[precision]
    place = f"at clip_weight {network.clip_weight:g}"
    name = f"video_encoder {place}"
    video = _sane(network.video(clips), (1, manifest.frames_per_clip, width), name)
    began = time.perf_counter()
    _alike(network.video(clips), video, tolerance, name, "the same at a second call")
    clip_seconds = time.perf_counter() - began
    both = network.video(np.concatenate([clips, clips[:, ::-1]]))
    _alike(both[:1], video, tolerance, name, "the same in a batch as alone")
    name = f"text_encoder {place}"
    text = _sane(network.text(ids), (1, width), name)
    began = time.perf_counter()
    _alike(network.text(ids), text, tolerance, name, "the same at a second call")
    text_seconds = time.perf_counter() - began
    if before is not None:
        _alike(video[0], before.video, tolerance, f"video_encoder {place}", "what it was before")
        _alike(text[0], before.text, tolerance, f"text_encoder {place}", "what it was before")
    known = None if published is None else published.outputs.get(network.clip_weight)
    if published is not None and known is not None:
        words = "what was published"
        if precision == "float32":
            error, slack = _FULL, _TF32 if device.kind == "cuda" else tolerance
        else:
            error, slack = published.errors[VARIANTS[precision]], tolerance
        _alike(video[0], known.video, slack + error.video, f"video_encoder {place}", words)
        _alike(text[0], known.text, slack + error.text, f"text_encoder {place}", words)
    return Golden(video[0], text[0], clip_seconds, text_seconds, ids.shape[1])


def still_sings(
    network: Network, *, manifest: Manifest, precision: Precision, before: Golden
) -> None:
    """Check that `network` gives for the known text what it gave when it was checked.

    Raises:
        ArtefactError: it does not; one line.
    """
    name = f"text_encoder at clip_weight {network.clip_weight:g}"
    text = _sane(network.text(_text(manifest)), (1, manifest.embedding_size), name)
    _alike(text[0], before.text, _TOLERANCE[precision], name, "what it was before")


def _clip(manifest: Manifest) -> npt.NDArray[np.float32]:
    size = manifest.preprocessing.image_size
    return known_clip(frames=manifest.frames_per_clip, image_size=size)


def _text(manifest: Manifest) -> npt.NDArray[np.int64]:
    return known_text(context_length=manifest.context_length)


def _sane(
    found: npt.NDArray[np.float32], shape: tuple[int, ...], name: str
) -> npt.NDArray[np.float32]:
    if found.shape != shape:
        raise ArtefactError(name, expected=f"output {shape}", found=f"{found.shape}")
    if bad_rows(found).size:
        raise ArtefactError(
            name,
            expected="finite embeddings with a direction",
            found="an embedding that is zero or not finite",
        )
    return found.astype(np.float32)  # a copy: the runtime may use its memory again


def _alike(
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    tolerance: float,
    name: str,
    words: str,
) -> None:
    largest = float(np.abs(expected).max())
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance * largest:
        raise ArtefactError(
            name,
            expected=f"output that is {words}, to {tolerance:g} of the largest value",
            found=f"a difference of {difference / largest:.2g}",
        )


def bad_rows(output: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return which rows of (n, ..., D) hold an embedding that is zero or not finite."""
    lengths = np.linalg.norm(output.astype(np.float32, copy=False), axis=-1)
    fine = np.isfinite(lengths) & (lengths > 0)
    return np.flatnonzero(~fine.reshape(len(output), -1).all(axis=1))
