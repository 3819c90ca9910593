"""ONNX Runtime: graphs without weights, weights fed as external initialisers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.encode.device import CPU, Device, DeviceError
from service.encode.graph import external_initializers
from service.encode.runtime import Arrays, Tower
from service.videoclip.manifest import ArtefactError

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"

Provider = str | tuple[str, dict[str, int]]


def require(device: Device) -> None:
    """Raise DeviceError unless the installed ONNX Runtime was built for the device."""
    if device.kind == "cuda" and _CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"VTAG_DEVICE: {device} needs {_CUDA}, which this ONNX Runtime lacks"
            " (install onnxruntime-gpu in place of onnxruntime)"
        )


def providers(device: Device) -> list[Provider]:
    """Return the execution providers, preferred first; the CPU's takes what the other lacks."""
    if device.kind == "cpu":
        return [_CPU]
    return [(_CUDA, {"device_id": device.number}), _CPU]


def video_tower(folder: Path, *, weights: Arrays, threads: int, device: Device = CPU) -> Tower:
    """Load `video_encoder.onnx`. Raises ArtefactError when graph and weights do not fit."""
    path = folder / "video_encoder.onnx"
    names = ("frames", "frame_embeddings")
    return _tower(path, weights, threads, device, names=names)


def text_tower(folder: Path, *, weights: Arrays, threads: int, device: Device = CPU) -> Tower:
    """Load `text_encoder.onnx`. Raises ArtefactError when graph and weights do not fit."""
    path = folder / "text_encoder.onnx"
    names = ("token_ids", "text_embeddings")
    return _tower(path, weights, threads, device, names=names)


def _tower(
    path: Path, weights: Arrays, threads: int, device: Device, *, names: tuple[str, str]
) -> Tower:
    session = _session(path, weights, threads, device)
    for expected, nodes in ((names[0], session.get_inputs()), (names[1], session.get_outputs())):
        found = _names(nodes)
        if found != [expected]:
            raise ArtefactError(path.name, expected=f"the one tensor {expected}", found=str(found))

    def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32] = session.run([names[1]], {names[0]: values})[0]
        return output

    return run


def _session(path: Path, weights: Arrays, threads: int, device: Device) -> Any:
    wanted = external_initializers(path)
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise ArtefactError(
            path.name, expected=f"weights for {missing[:5]}", found=f"{len(missing)} missing"
        )
    # Measured: the session copies (a value overwritten afterwards does not change its output),
    # but the values must live until it is made.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(_contiguous(weights[n])) for n in wanted]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads gain nothing here and double the cost of a busy neighbour.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_external_initializers(list(wanted), values)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers(device))
    except Exception as error:  # ONNX Runtime's errors share no base class
        text = " ".join(str(error).split())
        raise ArtefactError(path.name, expected="a graph that loads", found=text[:300]) from error
    # Asked for CUDA without its libraries or with no such device, it would take the CPU in silence.
    if device.kind == "cuda" and _CUDA not in session.get_providers():
        raise DeviceError(
            f"VTAG_DEVICE: {device} cannot be used (no such device, or no CUDA and cuDNN)"
        )
    return session


def _contiguous(value: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    # A scalar must stay an array of no dimensions: ascontiguousarray would give it one.
    return np.require(value, requirements="C") if value.ndim else np.asarray(value)


def _names(nodes: Sequence[Any]) -> list[str]:
    return [str(node.name) for node in nodes]
