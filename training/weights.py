"""State dicts from files of others: read without running anything that is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# OpenAI's archives hold these three numbers beside the weights.
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}


class WeightsError(ValueError):
    """A file that holds no usable weights; names the file and what is wrong."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a file of `torch.save`, in float32.

    Takes `{"state_dict": …}` around it and `module.` before every name. Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {error}") from error
    except Exception as error:  # torch.load raises anything, pickle's errors included
        reason = str(error).split("\n", 1)[0][:200]
        raise WeightsError(f"{path}: not a file of plain weights: {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(n, str) for n in content):
        raise WeightsError(f"{path}: holds no state dict")
    tensors = {n: t for n, t in content.items() if n not in _NO_WEIGHTS}
    odd = sorted(n for n, t in tensors.items() if not isinstance(t, Tensor))
    if odd or not tensors:
        raise WeightsError(f"{path}: no tensors under {odd[:5]}" if odd else f"{path}: is empty")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): t for name, t in tensors.items()}
    return {name: tensor.float() for name, tensor in tensors.items()}


def require_names(
    weights: Mapping[str, Tensor], *, expected: Mapping[str, Tensor], where: str
) -> None:
    """Raise WeightsError, listing every difference, unless names and shapes are the expected."""
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    wrong += [f"{name} is unknown" for name in weights if name not in expected]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        raise WeightsError(f"{where}: {len(wrong)} weights do not fit: {'; '.join(wrong)}")
