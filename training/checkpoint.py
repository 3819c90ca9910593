"""An interrupted training as one file: safetensors, with the small facts as JSON in its header.

Nothing random needs saving: whatever is drawn follows from the seed and the step's number
(`training.step`, `training.data.batches`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.errors import Refusal
from training.optimizer import RunningMean
from training.revision_folder import flush
from training.step import Step

_ADAM = "adam."
_EXTRA = "extra."
_FACTS = "training"
_VERSION = 1


class CheckpointError(Refusal):
    """A checkpoint that cannot be gone on from; names the file and what does not fit."""


@dataclass(frozen=True)
class Resumed:
    """What was in a checkpoint beside the step's own state.

    steps_done: the next step has this number. extra, notes: what `save` was given.
    """

    steps_done: int
    extra: dict[str, Tensor]
    notes: dict[str, Any]


def save(
    path: Path,
    step: Step,
    *,
    steps_done: int,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, both moments of AdamW, the running mean, and the loss scale.

    extra, notes: more tensors, and more facts for JSON. The file is complete or, if the process is
    killed, the one before.
    """
    tensors = {"weights": step.weights.vector}
    tensors |= {_ADAM + name: tensor for name, tensor in step.optimizer.state().items()}
    tensors |= {_EXTRA + name: tensor for name, tensor in (extra or {}).items()}
    if step.mean.count:
        tensors["mean"] = step.mean.mean
    facts = {
        "version": _VERSION,
        "steps_done": steps_done,
        "layout": _layout(step),
        "mean_count": step.mean.count,
        "loss_scale": [step.scale.factor, step.scale.updates],
        "notes": dict(notes or {}),
    }
    aside = path.with_name(path.name + ".partial")
    save_file(tensors, aside, metadata={_FACTS: json.dumps(facts)})
    flush(aside)
    aside.replace(path)
    flush(path.parent)


def load(path: Path, step: Step) -> Resumed:
    """Bring a step, made from the same configuration, to where the checkpoint was written.

    Raises CheckpointError when the file is damaged or of other weights.
    """
    try:
        with safe_open(path, framework="pt", device=str(step.device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint: {error}") from error
    try:
        facts = json.loads(metadata.get(_FACTS, ""))
        version, layout = facts["version"], facts["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program") from error
    if version != _VERSION or layout != _layout(step):
        raise CheckpointError(f"{path}: of another version, recipe or network")
    with torch.no_grad():
        step.weights.vector.copy_(tensors["weights"])
    step.optimizer.load(_under(tensors, _ADAM))
    step.mean = RunningMean(tensors.get("mean"), count=facts["mean_count"])
    step.scale.factor, step.scale.updates = facts["loss_scale"]
    return Resumed(
        steps_done=facts["steps_done"], extra=_under(tensors, _EXTRA), notes=facts["notes"]
    )


def _layout(step: Step) -> dict[str, list[int]]:
    """Name -> offset and shape of every trained weight."""
    return {name: [at, *step.weights.shapes[name]] for name, at in step.weights.offsets.items()}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
