"""A device that fails on demand, put under the runtime protocol of a service under test.

Python imports a module of this name at the start of every interpreter that has its folder on
PYTHONPATH. Here it wraps the towers that `service.encode.onnx` makes; nothing else is touched.
The file that FAILING_DEVICE names says how they fail, and is read at each call:

- `clips`: more of them in one batch are out of memory; 0: none fit.
- `texts`: the same for sentences.
- `calls`: after so many the device is lost, until there is another process.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_MODULE: Final = "service.encode.onnx"


class _Wrapped(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for kind, name in (("clips", "video_tower"), ("texts", "text_tower")):
            setattr(module, name, _failing(getattr(module, name), kind))


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapped(spec.loader)
        return spec


_calls = 0


def _failing(make: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def made(*arguments: Any, **named: Any) -> Callable[[Any], Any]:
        tower = make(*arguments, **named)

        def run(values: Any) -> Any:
            _fail(kind, len(values))
            return tower(values)

        return run

    return made


def _fail(kind: str, size: int) -> None:
    global _calls
    try:
        wanted = json.loads(Path(os.environ["FAILING_DEVICE"]).read_bytes())
    except (KeyError, OSError, ValueError):
        return
    if size > wanted.get(kind, size):
        raise RuntimeError(f"CUDA out of memory. Tried to allocate {size} GiB.")
    if "calls" in wanted:
        _calls += 1
        if _calls > wanted["calls"]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


if "FAILING_DEVICE" in os.environ:
    sys.meta_path.insert(0, _Finder())
