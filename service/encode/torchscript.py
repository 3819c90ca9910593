"""TorchScript: traced functions of (input, weights). Needs torch, which the service does not.

The archive holds no weights, so one file serves every λ, as the ONNX graph does. Imported only
when the setting asks for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from service.encode.runtime import Arrays, Tower
from service.videoclip.manifest import ArtefactError


def video_tower(folder: Path, *, weights: Arrays, threads: int) -> Tower:
    """Load `video_encoder.ts`. Raises ArtefactError when it is missing or does not load."""
    return _tower(folder / "video_encoder.ts", weights, threads)


def text_tower(folder: Path, *, weights: Arrays, threads: int) -> Tower:
    """Load `text_encoder.ts`. Raises ArtefactError when it is missing or does not load."""
    return _tower(folder / "text_encoder.ts", weights, threads)


def _tower(path: Path, weights: Arrays, threads: int) -> Tower:
    torch.set_num_threads(threads)
    try:
        load: Any = torch.jit.load  # carries no types
        function = load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise ArtefactError(
            path.name, expected="a TorchScript file", found=str(error).splitlines()[0][:300]
        ) from error
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}

    def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output: npt.NDArray[np.float32] = function(torch.from_numpy(values), tensors).numpy()
        return output

    return run
