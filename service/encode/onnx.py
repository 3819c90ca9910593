"""ONNX Runtime: graphs without weights, weights fed as external initialisers."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.encode.device import CPU, Device, DeviceError
from service.encode.graph import external_initializers
from service.encode.pinned import pinned
from service.encode.runtime import Arrays, Precision, Tower, graph_files
from service.videoclip.manifest import ArtefactError
from service.videoclip.number_formats import fit

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


def video_tower(
    folder: Path,
    *,
    weights: Arrays,
    threads: int,
    device: Device = CPU,
    precision: Precision = "float32",
) -> Tower:
    """Load the video graph. Raises ArtefactError when graph and weights do not fit."""
    path = folder / graph_files(precision)[0]
    names = ("frames", "frame_embeddings")
    return _tower(path, weights, threads, device, names=names)


def text_tower(
    folder: Path,
    *,
    weights: Arrays,
    threads: int,
    device: Device = CPU,
    precision: Precision = "float32",
) -> Tower:
    """Load the text graph. Raises ArtefactError when graph and weights do not fit."""
    path = folder / graph_files(precision)[1]
    names = ("token_ids", "text_embeddings")
    return _tower(path, weights, threads, device, names=names)


def staging(size_bytes: int, device: Device) -> npt.NDArray[np.uint8]:
    """Return memory for inputs; see `Runtime.staging`."""
    return np.empty(size_bytes, np.uint8) if device.kind == "cpu" else pinned(size_bytes)


def _tower(
    path: Path, weights: Arrays, threads: int, device: Device, *, names: tuple[str, str]
) -> Tower:
    session = _session(path, weights, threads, device)
    for expected, nodes in ((names[0], session.get_inputs()), (names[1], session.get_outputs())):
        found = _names(nodes)
        if found != [expected]:
            raise ArtefactError(path.name, expected=f"the one tensor {expected}", found=str(found))

    if device.kind == "cuda":
        return BoundTower(session, names=names, device=str(device.kind), number=device.number)

    def run(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32] = session.run([names[1]], {names[0]: values})[0]
        return output

    return run


class BoundTower:
    """A session whose inputs and outputs stay on the device, bound once for each shape.

    A plain run would ask the device for memory and give it back at each call, and wait for both.
    """

    def __init__(
        self, session: Any, *, names: tuple[str, str], device: str, number: int, shapes: int = 32
    ) -> None:
        self._session = session
        self._names = names
        self._place = (device, number)
        self._shapes = shapes
        self._inputs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()  # a text tower may be shared by two networks

    def __call__(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Run it; see `Tower`."""
        with self._lock:
            held = self._input(values)
            held.update_inplace(values)  # straight from pinned memory
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(self._names[0], held)
            binding.bind_output(self._names[1], *self._place)
            self._session.run_with_iobinding(binding)
            output: npt.NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
            return output

    def _input(self, values: npt.NDArray[np.generic]) -> Any:
        held = self._inputs.get(values.shape)
        if held is None:
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            held = self._inputs[values.shape] = make(values.shape, values.dtype.type, *self._place)
        self._inputs.move_to_end(values.shape)
        while len(self._inputs) > self._shapes:
            self._inputs.popitem(last=False)
        return held


def _session(path: Path, weights: Arrays, threads: int, device: Device) -> Any:
    wanted = external_initializers(path)
    try:
        arrays = fit(weights, wanted)
    except ValueError as error:
        raise ArtefactError(
            path.name, expected="weights that fit the graph", found=str(error)[:300]
        ) from error
    # Measured: the session copies (a value overwritten afterwards does not change its output),
    # but the values must live until it is made.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads gain nothing here and double the cost of a busy neighbour.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without this, int8 products overflow on processors that have AVX2 or AVX-512, but no VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_external_initializers(list(arrays), values)
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


def _names(nodes: Sequence[Any]) -> list[str]:
    return [str(node.name) for node in nodes]
