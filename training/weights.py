"""Weights from files of others: read without running anything that is in them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.errors import Refusal
from training.torchscript_weights import is_torchscript, tensors_of

# OpenAI's archives hold these three numbers beside the weights.
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
_DISTRIBUTED = "module."
_OBJECT = re.compile(r"GLOBAL (\S+) was not an allowed global")


class WeightsError(Refusal):
    """A file that holds no usable weights; names the file and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """The state dict of a file, as it is there.

    tensors: names and types of the file, without the `module.` of distributed training. section:
    where in the file it was found; None if the file is nothing else. beside: names of what else the
    file holds (optimiser, epoch, settings).
    """

    path: Path
    tensors: dict[str, Tensor]
    section: str | None
    beside: tuple[str, ...]


def read_checkpoint(
    path: Path, *, section: str = "state_dict", joined: Mapping[str, str] | None = None
) -> Checkpoint:
    """Read a .safetensors file, a file of `torch.save`, or an archive of TorchScript.

    section: where the state dict lies if the file holds other things, too; without it, the file
    itself is the state dict. joined: other sections that belong to it -> prefix of their names.
    Raises WeightsError for a file that is missing, damaged, holds no tensors, or holds objects that
    loading would have to run: then with what to do about it.
    """
    content = _content(path, section=section)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds no state dict, but a {type(content).__name__}")
    nested = isinstance(content.get(section), dict)
    tensors = _tensors(content[section] if nested else content, where=f"{path}: {section}")
    taken = {section}
    for name, prefix in (joined or {}).items() if nested else ():
        if isinstance(content.get(name), dict):
            more = _tensors(content[name], where=f"{path}: {name}")
            tensors = _united(
                tensors, {prefix + n: t for n, t in more.items()}, where=f"{path}: {name}"
            )
            taken.add(name)
    if not tensors:
        raise WeightsError(f"{path}: is empty")
    beside = tuple(str(name) for name in content if name not in taken) if nested else ()
    return Checkpoint(
        path=path, tensors=tensors, section=section if nested else None, beside=beside
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, in float32.

    Takes `{"state_dict": …}` around it and `module.` before every name. Raises WeightsError.
    """
    return {name: tensor.float() for name, tensor in read_checkpoint(path).tensors.items()}


def require_names(
    weights: Mapping[str, Tensor],
    *,
    expected: Mapping[str, Tensor],
    where: str,
    in_file: Mapping[str, str] | None = None,
) -> None:
    """Raise WeightsError, listing every difference, unless names and shapes are the expected.

    in_file: what names were called in the file, where that differs.
    """
    original = in_file or {}
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    wrong += [f"{original.get(name, name)} is unknown" for name in weights if name not in expected]
    wrong += [
        f"{original.get(name, name)} has shape {tuple(weights[name].shape)}, not "
        f"{tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        raise WeightsError(f"{where}: {len(wrong)} weights do not fit: {'; '.join(wrong)}")


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tensors(state: Mapping[Any, Any], *, where: str) -> dict[str, Tensor]:
    tensors = {name: value for name, value in state.items() if name not in _NO_WEIGHTS}
    odd = sorted(str(n) for n, value in tensors.items() if not isinstance(value, Tensor))
    if odd:
        raise WeightsError(f"{where}: no tensors under {', '.join(odd)}")
    wrapped = all(str(name).startswith(_DISTRIBUTED) for name in tensors)
    cut = len(_DISTRIBUTED) if wrapped else 0
    return {str(name)[cut:]: value for name, value in tensors.items()}


def _united(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], *, where: str
) -> dict[str, Tensor]:
    twice = [n for n in first if n in second and not torch.equal(first[n], second[n])]
    if twice:
        raise WeightsError(f"{where}: is there twice, with other values: {', '.join(twice)}")
    return {**first, **second}


def _content(path: Path, *, section: str) -> Any:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file: {error}") from error
    try:
        if is_torchscript(path):
            return tensors_of(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything, pickle's errors included
        unsafe = _OBJECT.search(str(error))
        if unsafe:
            raise WeightsError(_extraction(path, unsafe[1], section=section)) from error
        reason = str(error).split("\n", 1)[0][:200]
        if "weights_only" in reason:  # torch's advice to switch the check off is none of ours
            reason = "torch.load finds no state dict of tensors in it; it may be damaged"
        raise WeightsError(f"{path}: not a file of plain weights: {reason}") from error


def _extraction(path: Path, unsafe: str, *, section: str) -> str:
    package = unsafe.partition(".")[0]
    return (
        f"{path}: not a file of plain weights: it holds an object of {unsafe}, and reading that "
        f"would run what the file says. If you trust its origin, take out {section!r} in a "
        f"sandbox that has {package} and no network, and import weights.pt: "
        f"python -c \"import torch; torch.save(torch.load({path.name!r}, map_location='cpu', "
        f"weights_only=False)[{section!r}], 'weights.pt')\""
    )
