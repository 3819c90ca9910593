"""The tensors of a TorchScript archive, read as data: the program in it is neither loaded nor run.

OpenAI published CLIP as such archives. `torch.load` refuses them with weights_only=True and would
hand them to TorchScript otherwise. An archive is a zip file: without its code what remains is a
checkpoint whose objects are the modules, and those are read here as empty shells.
"""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What makes an archive a program, by the first part of a record's name.
_PROGRAM = ("code", "constants", "constants.pkl", ".debug_pkl")
_MODULES = "__torch__."


class _Shell:
    """What stands for a module: it holds the attributes and can do nothing."""


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(_record(name) == "constants.pkl" for name in archive.namelist())


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Parameters, buffers and other tensors of the archive's modules, by the names of a state dict.

    Raises what `torch.load` raises for a damaged file, or for one that holds anything else.
    """
    with tempfile.TemporaryDirectory(prefix="vtag-weights-") as folder:
        data = Path(folder) / "weights.pt"
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(data, "w") as copy:
            for entry in archive.infolist():
                if not _record(entry.filename).split("/", 1)[0].endswith(_PROGRAM):
                    copy.writestr(entry.filename, archive.read(entry))
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(data))
        # A list of (class, name): for any class name of the program, the same shell.
        shells: Any = [(_Shell, name) for name in names if name.startswith(_MODULES)]
        with torch.serialization.safe_globals(shells):
            module = torch.load(data, map_location="cpu", weights_only=True)
    return dict(_walk(module, prefix=""))


def _record(name: str) -> str:
    """The name of a record within its archive: the first folder is the archive's own name."""
    return name.partition("/")[2]


def _walk(module: Any, *, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in vars(module).items() if isinstance(module, _Shell) else ():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        else:
            found += _walk(value, prefix=f"{prefix}{name}.")
    return found
