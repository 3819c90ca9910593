"""Compare the network with outputs and gradients that Open-VCLIP's own module gave."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.errors import Refusal
from training.losses import video_logits
from training.models.network import VideoCLIP, build
from training.recipe import Batch
from training.recipes.open_vclip import OpenVCLIP
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

TOLERANCE = 1e-4


class ReferenceFileError(Refusal):
    """The file is missing, damaged, or not a reference file; the message says which and why."""


@dataclass(frozen=True)
class ReferenceErrors:
    """How far this network is from the reference.

    frames, frames_without_neighbours (None: not in the file), logits, losses: largest absolute
    difference. gradient: over all weights, the largest difference within a weight divided by the
    largest absolute value of the reference there: a small gradient is held to the same standard as
    a large one, and the rounding of one element near zero is not magnified.
    """

    frames: float
    frames_without_neighbours: float | None
    logits: float
    losses: float
    gradient: float
    worst_gradient: str

    @property
    def passed(self) -> bool:
        """Whether every error is below the tolerance. NaN is not."""
        errors = [self.frames, self.logits, self.losses, self.gradient]
        if self.frames_without_neighbours is not None:
            errors.append(self.frames_without_neighbours)
        return all(error < TOLERANCE for error in errors)

    def lines(self) -> list[str]:
        """What `check-reference` prints."""
        rows = [("frame outputs", "absolute", self.frames)]
        if self.frames_without_neighbours is not None:
            rows.append(
                ("frame outputs without neighbours", "absolute", self.frames_without_neighbours)
            )
        rows += [
            ("video logits", "absolute", self.logits),
            ("losses", "absolute", self.losses),
            ("interpolated-weight gradient", "relative", self.gradient),
        ]
        return [
            *(f"{name:<34}largest {kind} error  {error:.3e}" for name, kind, error in rows),
            f"  relative: largest difference within a weight / largest reference value there; "
            f"worst in {self.worst_gradient}",
            f"{'passed' if self.passed else 'FAILED'}: the limit is {TOLERANCE:.0e} for each",
        ]


def compare_with_reference(path: Path) -> ReferenceErrors:
    """Build the network that the file describes, run it, and measure.

    Raises ReferenceFileError for anything about the file that keeps this from being done.
    """
    tensors, metadata = _read(path)
    try:
        return _compare(tensors, metadata)
    except ReferenceFileError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        # Shapes and settings that contradict each other surface as these, in torch's words.
        reason = " ".join(str(error).split())
        raise ReferenceFileError(f"{path}: cannot be used: {reason}") from error


def _compare(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> ReferenceErrors:
    config = json.loads(metadata["config"])
    batch, T = int(metadata["batch"]), int(config["T"])
    mixing = json.loads(metadata["iwr"])
    network = _network(config, tensors)
    frames = _clips(tensors["ref/input"], batch=batch, T=T)
    if not float(mixing["C"]) > 0.0:
        raise ReferenceFileError("metadata 'iwr': C must be above 0")
    original = _under(tensors, "iwr/theta_A/")
    # A file that leaves out CLIP's logit scale means that both ends share one.
    original.setdefault("logit_scale", network.logit_scale.detach().clone())
    step = Step(
        OpenVCLIP(network, classifier=tensors["ref/text"]),
        steps=1,
        optimisation=OptimisationConfig(steps=1),
        regularisation=RegularisationConfig(interpolation_coefficient=float(mixing["C"])),
        seed=0,
        original=original,
    )
    labelled = Batch(frames=frames, labels=tensors["ref/labels"])
    parts, mixed_loss = step.gradient(labelled, alpha=float(mixing["alpha"]))
    assert mixed_loss is not None
    worst, gradient = _relative(
        {n.removeprefix("network."): g for n, g in step.gradients().items()},
        expected=_under(tensors, "iwr/grad_total/"),
    )
    with torch.no_grad():
        out = network.encode_frames(frames)
        logits = video_logits(out, tensors["ref/text"], logit_scale=network.logit_scale)
        network.temporal = "none"
        plain = network.encode_frames(frames)
    without_neighbours = tensors.get("ref/output_no_temporal")
    return ReferenceErrors(
        frames=_absolute(out.flatten(0, 1), tensors["ref/output"]),
        frames_without_neighbours=None
        if without_neighbours is None
        else _absolute(plain.flatten(0, 1), without_neighbours),
        logits=_absolute(logits, tensors["ref/video_logits"]),
        losses=max(
            _absolute(parts["loss"], tensors["iwr/loss_B"]),
            _absolute(mixed_loss, tensors["iwr/loss_interp"]),
        ),
        gradient=gradient,
        worst_gradient=worst,
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ReferenceFileError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ReferenceFileError(f"{path}: not a whole safetensors file: {error}") from error
    lacking = [key for key in ("config", "batch", "iwr") if key not in metadata]
    if lacking:
        raise ReferenceFileError(f"{path}: not a reference file: metadata lacks {lacking}")
    return tensors, metadata


def _network(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> VideoCLIP:
    """The network of the file's configuration and weights, with a text tower that is never used."""
    width, heads = int(config["width"]), int(config["heads"])
    network = build(
        {
            "embed_dim": int(config["output_dim"]),
            "vision_cfg": {
                "image_size": int(config["input_resolution"]),
                "patch_size": int(config["patch_size"]),
                "width": width,
                "layers": int(config["layers"]),
                "head_width": width // heads,
            },
            "text_cfg": {
                "context_length": 2,
                "vocab_size": 2,
                "width": 8,
                "heads": 1,
                "layers": 1,
            },
            # The reference comes from OpenAI's CLIP, which has no other activation.
            "quick_gelu": True,
            "temporal": "neighbour",
        }
    )
    network.visual.load_state_dict(_under(tensors, "visual."), strict=True)
    with torch.no_grad():
        network.logit_scale.fill_(math.log(float(tensors["ref/logit_scale_exp"])))
    return network


def _clips(frames: Tensor, *, batch: int, T: int) -> Tensor:
    """(batch*T, 3, H, W), row b*T + t, as (batch, T, 3, H, W)."""
    if frames.shape[0] != batch * T:
        raise ReferenceFileError(
            f"ref/input: {frames.shape[0]} frames where batch {batch} x T {T} asks for {batch * T}"
        )
    return frames.view(batch, T, *frames.shape[1:])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _absolute(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        raise ReferenceFileError(f"shape {tuple(expected.shape)} where {tuple(found.shape)} fits")
    return float((found.detach() - expected).abs().max())


def _relative(found: Mapping[str, Tensor], *, expected: Mapping[str, Tensor]) -> tuple[str, float]:
    """The weight with the largest relative gradient error, and that error."""
    if set(found) != set(expected):
        differing = sorted(set(found) ^ set(expected))
        raise ReferenceFileError(f"iwr/grad_total: other weights than the network's: {differing}")
    errors = {}
    for name, value in expected.items():
        scale = float(value.abs().max())
        difference = _absolute(found[name], value)
        errors[name] = difference / scale if scale > 0.0 else difference
    # NaN compares with nothing: look for it first, or it would hide behind any number.
    worst = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    return worst, errors[worst]
