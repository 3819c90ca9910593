"""open_clip, the library the towers come from, imported in the one way that works everywhere."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A library object undefines its operators when it is collected, so it has to live with the process.
_definitions: list[torch.library.Library] = []


def open_clip() -> ModuleType:
    """The `open_clip` module; every import of it in this project goes through here."""
    let_torchvision_import()
    return importlib.import_module("open_clip")


def let_torchvision_import() -> None:
    """Call this before the first import of torchvision, which open_clip needs.

    torchvision registers fake kernels for two of its own operators while it is imported. A
    torchvision wheel built for CUDA cannot load its operators beside a CPU build of torch, so the
    import would stop at them. Their schemas are defined here first, and only where torchvision's
    library does not define them itself; nothing here ever calls them.
    """
    if not _defined("nms") and not _torchvision_operators_load():
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            if not _defined(name):
                library.define(f"{name}{_SCHEMA}")  # type: ignore[no-untyped-call]
        _definitions.append(library)


def _defined(operator: str) -> bool:
    return hasattr(torch.ops.torchvision, operator)


def _torchvision_operators_load() -> bool:
    """Load torchvision's operator library without importing torchvision; False if it cannot be."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is missing: install the extra 'training'")
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return _defined("nms")
