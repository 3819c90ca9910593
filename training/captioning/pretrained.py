"""Models of `transformers`, from a folder or from the hub."""

from typing import Any

import torch

from training.errors import Refusal
from training.models.towers import open_clip


class CaptionModelError(Refusal):
    """A model that is not there, or is of the wrong kind; names it."""


def transformers_library() -> Any:
    """The library, or one line that says how to get it. Raises CaptionModelError."""
    open_clip()  # makes torchvision importable, which transformers looks for
    try:
        import transformers
    except ImportError as error:
        raise CaptionModelError("transformers is missing: install the extra 'captions'") from error
    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    return library


def pretrained(kind: Any, name: str, *, what: str, **options: Any) -> Any:
    """`kind.from_pretrained(name)`. name: a folder, or an id on the hub.

    Weights are read from safetensors files only, and no code that comes with a model is run.
    Raises CaptionModelError.
    """
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CaptionModelError(
            f"{what} = {name!r}: no such model in a folder, nor of that name on a hub that can be "
            f"reached: {reason}"
        ) from error


def best_device() -> torch.device:
    """A graphics card where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def number_format(device: torch.device) -> torch.dtype:
    """fp16 on a graphics card: BLIP-2 XXL has 12 billion weights. fp32 on a CPU."""
    return torch.float16 if device.type == "cuda" else torch.float32
