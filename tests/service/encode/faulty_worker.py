"""An encoder worker whose device has faults: the real one on towers that fail as a file says."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.channel import Channel
from service.encode import onnx, worker

FAULTS = "TEST_DEVICE_FAULTS"
"""Names the file; it says `lost once`, `lost`, `memory N` (clips that fit), `wrong` (texts), or
`hang`: with more than one text, which the checks of a start do not have."""


def hanging(faults: Path, pid: int) -> Path:
    """The file that says that the worker `pid` has begun to hang."""
    return faults.with_name(f"hanging-{pid}")


def tell(faults: Path, words: str) -> None:
    """Write the file so that nobody reads a half of it."""
    beside = faults.with_suffix(".new")
    beside.write_text(words)
    beside.replace(faults)


def serve(channel: Channel) -> None:
    """Run the worker."""
    path = Path(os.environ[FAULTS])
    real = onnx.video_tower

    def faulty(*args: Any, **options: Any) -> Callable[..., npt.NDArray[np.float32]]:
        tower = real(*args, **options)

        def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
            words = path.read_text().split() if path.exists() else []
            if words[:1] == ["lost"]:
                if words[1:] == ["once"]:
                    path.unlink()
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            if words[:1] == ["memory"] and len(values) > int(words[1]):
                raise RuntimeError(
                    "Failed to allocate memory for requested buffer of size 123456789"
                )
            return tower(values)

        return run

    real_text = onnx.text_tower

    def wrong(*args: Any, **options: Any) -> Callable[..., npt.NDArray[np.float32]]:
        tower = real_text(*args, **options)

        def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
            words = path.read_text() if path.exists() else ""
            if words == "hang" and len(values) > 1:
                hanging(path, os.getpid()).touch()
                time.sleep(3600)
            if words == "wrong":
                path.unlink()
                return -tower(values)
            return tower(values)

        return run

    onnx.video_tower, onnx.text_tower = faulty, wrong
    worker.serve(channel)
