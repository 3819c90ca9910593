"""TorchScript: traced functions of (input, weights). Needs torch, which the service does not.

The archive holds no weights, so one file serves every λ, as the ONNX graph does. Imported only
when the setting asks for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from service.encode.device import CPU, Device, DeviceError
from service.encode.runtime import Arrays, Precision, Tower
from service.videoclip.manifest import ArtefactError


def require(device: Device) -> None:
    """Raise DeviceError unless torch can use the device."""
    if device.kind == "cuda" and device.number >= torch.cuda.device_count():
        raise DeviceError(
            f"VTAG_DEVICE: {device} is not there: torch finds {torch.cuda.device_count()}"
            " CUDA devices"
        )


def video_tower(
    folder: Path,
    *,
    weights: Arrays,
    threads: int,
    device: Device = CPU,
    precision: Precision = "float32",  # noqa: ARG001 - there are no others, see `Model`
) -> Tower:
    """Load `video_encoder.ts`. Raises ArtefactError when it is missing or does not load."""
    return _tower(folder / "video_encoder.ts", weights, threads, str(device))


def text_tower(
    folder: Path,
    *,
    weights: Arrays,
    threads: int,
    device: Device = CPU,
    precision: Precision = "float32",  # noqa: ARG001 - there are no others, see `Model`
) -> Tower:
    """Load `text_encoder.ts`. Raises ArtefactError when it is missing or does not load."""
    return _tower(folder / "text_encoder.ts", weights, threads, str(device))


def staging(size_bytes: int, device: Device) -> npt.NDArray[np.uint8]:
    """Return memory for inputs; see `Runtime.staging`."""
    memory = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=device.kind == "cuda")
    array: npt.NDArray[np.uint8] = memory.numpy()  # holds on to the tensor
    return array


def _tower(path: Path, weights: Arrays, threads: int, device: str) -> Tower:
    torch.set_num_threads(threads)
    try:
        load: Any = torch.jit.load  # carries no types
        function = load(str(path), map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise ArtefactError(
            path.name, expected="a TorchScript file", found=str(error).splitlines()[0][:300]
        ) from error
    tensors = {
        name: torch.from_numpy(np.array(value)).to(device) for name, value in weights.items()
    }

    def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found = function(torch.from_numpy(values).to(device, non_blocking=True), tensors)
            output: npt.NDArray[np.float32] = found.cpu().numpy()
        return output

    return run
