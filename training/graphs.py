"""Run exported graphs on weights that are given as arrays, as the service does."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from service.videoclip.number_formats import NumberFormat, Wanted, fit

Weights = Mapping[str, NDArray[Any]]
Graph = Callable[[NDArray[Any]], NDArray[np.float32]]

# Beside weights that are fed in full, spinning threads only disturb the neighbours.
_NO_SPINNING = ("session.intra_op.allow_spinning", "0")
# Without this, int8 products overflow on processors that have AVX2 or AVX-512, but no VNNI.
_NO_OVERFLOW = ("session.x64quantprecision", "1")
_ERRORS_ONLY = 3
_FORMATS: dict[int, NumberFormat] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT8: "int8",
}


def load_graph(path: Path, weights: Weights, *, threads: int = 0) -> Graph:
    """A function from the graph's input to its output, for .onnx and .ts files.

    weights: float32 arrays by state-dict name; more than the graph needs is fine. A graph of
    another number format gets them in that, see `service.videoclip.number_formats`. threads: 0
    leaves it to the runtime. Raises ValueError when weights are missing or the file is of neither
    kind.
    """
    if path.suffix == ".onnx":
        return _load_onnx(path, weights, threads=threads)
    if path.suffix == ".ts":
        return _load_torchscript(path, weights)
    raise ValueError(f"{path.name}: neither .onnx nor .ts")


def wanted_weights(path: Path) -> list[Wanted]:
    """The initialisers that an ONNX file expects from outside."""
    model = onnx.load(path, load_external_data=False)
    return [
        Wanted(t.name, number_format=_FORMATS[t.data_type], shape=tuple(t.dims))
        for t in model.graph.initializer
        if t.data_location == onnx.TensorProto.EXTERNAL
    ]


def _load_onnx(path: Path, weights: Weights, *, threads: int) -> Graph:
    try:
        arrays = fit(weights, wanted_weights(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    # OrtValue aliases the array: both must outlive the making of the session.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(*_NO_SPINNING)
    options.add_session_config_entry(*_NO_OVERFLOW)
    options.add_external_initializers(list(arrays), values)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()

    def run(value: NDArray[Any]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = session.run([wanted.name], {given.name: value})[0]
        return out

    return run


def _load_torchscript(path: Path, weights: Weights) -> Graph:
    with warnings.catch_warnings():
        # Deprecated in torch, and what a TorchScript runtime still does.
        warnings.simplefilter("ignore", DeprecationWarning)
        function: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    tensors = {name: torch.tensor(array) for name, array in weights.items()}

    def run(value: NDArray[Any]) -> NDArray[np.float32]:
        with torch.no_grad():
            out: NDArray[np.float32] = function(torch.from_numpy(value), tensors).numpy()
        return out

    return run
