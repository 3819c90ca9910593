"""Write a network as graphs without weights: ONNX and TorchScript, one file for every λ."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor, nn

from training.errors import Refusal
from training.models.network import VideoCLIP

VISUAL = "visual."
# Where the graph says its weights are. No such file exists: the runtime feeds every initialiser.
PLACEHOLDER = "weights.bin"
# Anything larger inside a graph would be a weight that does not follow λ.
_MAX_CONSTANT_BYTES = 4096


class ExportError(RuntimeError):
    """A graph came out in a form that cannot be published."""


class _VideoEncoder(nn.Module):
    def __init__(self, network: VideoCLIP) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        return self.network.encode_frames(frames)


class _TextEncoder(nn.Module):
    def __init__(self, network: VideoCLIP) -> None:
        super().__init__()
        self.network = network

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.network.encode_text(token_ids)


def export(network: VideoCLIP, folder: Path, *, frames_per_clip: int) -> None:
    """Write video_encoder and text_encoder, each as .onnx and .ts, into an existing folder.

    video_encoder: float32 (clips, T, 3, S, S) -> float32 (clips, T, D), any number of clips, T =
    `frames_per_clip`. text_encoder: int64 (n, L) -> float32 (n, D), any n, 2 <= L <= context
    length. The .onnx files name their initialisers as the state dict does and hold none; the .ts
    files are functions of (input, weights: Dict[str, Tensor]) with the same names.
    Raises ExportError when a graph holds weights, or lacks some of its own; Refusal for no frames,
    or more than the network has positions for.
    """
    most = network.max_frames
    if frames_per_clip < 1 or (most is not None and frames_per_clip > most):
        raise Refusal(f"frames: {frames_per_clip} is not from 1 to {most or 'any number'}")
    with _ready(network):
        size = network.image_size
        clips = torch.zeros(2, frames_per_clip, 3, size, size)
        texts = torch.arange(2 * 3).view(2, 3) % min(3, network.vocabulary_size)
        onnx_of(
            _VideoEncoder(network),
            clips,
            folder / "video_encoder.onnx",
            names=("frames", "frame_embeddings"),
            dynamic={0: torch.export.Dim("clips", min=1)},
            weights=_names(network, visual=True),
        )
        onnx_of(
            _TextEncoder(network),
            texts,
            folder / "text_encoder.onnx",
            names=("token_ids", "text_embeddings"),
            dynamic={
                0: torch.export.Dim("texts", min=1),
                1: torch.export.Dim("tokens", min=2, max=network.context_length),
            },
            weights=_names(network, visual=False),
        )
        torchscript_of(network, clips, folder / "video_encoder.ts", visual=True)
        torchscript_of(network, texts, folder / "text_encoder.ts", visual=False)


def onnx_of(
    encoder: nn.Module,
    example: Tensor,
    path: Path,
    *,
    names: tuple[str, str],
    dynamic: dict[int, Any],
    weights: frozenset[str],
) -> None:
    """Export `encoder.network`'s tower with external initialisers named as in its state dict."""
    with warnings.catch_warnings():
        # torch's own use of what it deprecates, and a note that dropout would be active: none is.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder.eval(),
            (example,),
            dynamo=True,
            optimize=False,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    assert program is not None
    _optimise_around(program.model, prefix="network.", weights=weights, where=path.name)
    model = program.model_proto
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            _make_external(tensor)
        elif tensor.ByteSize() > _MAX_CONSTANT_BYTES:
            raise ExportError(f"{path.name}: {tensor.name} is large, and no weight")
    _strip(model)
    path.write_bytes(model.SerializeToString())


def _optimise_around(model: Any, *, prefix: str, weights: frozenset[str], where: str) -> None:
    """Simplify the graph in place, and keep every weight as it is, under its own name.

    The optimiser transposes, folds, renames and merges initialisers by their values. As inputs,
    weights have no values: so that is what they are while it runs.
    """
    graph = model.graph
    values = {
        name.removeprefix(prefix): value
        for name, value in list(graph.initializers.items())
        if name.removeprefix(prefix) in weights
    }
    if set(values) != weights:
        raise ExportError(f"{where}: weights that the graph lacks: {sorted(weights - set(values))}")
    inputs = len(graph.inputs)
    contents = {}
    for name, value in values.items():
        del graph.initializers[value.name]
        contents[name], value.const_value = value.const_value, None
        value.name = name
        graph.inputs.append(value)
    onnxscript.optimizer.optimize(
        model, input_size_limit=_MAX_CONSTANT_BYTES, output_size_limit=_MAX_CONSTANT_BYTES
    )
    if {value.name for value in graph.inputs[inputs:]} != weights:
        raise ExportError(f"{where}: the optimiser changed the names of weights")
    for value in list(graph.inputs[inputs:]):
        if not value.uses():
            raise ExportError(f"{where}: the graph does not use {value.name}")
        graph.inputs.remove(value)
        value.const_value = contents[value.name]
        graph.initializers.add(value)


def torchscript_of(network: VideoCLIP, example: Tensor, path: Path, *, visual: bool) -> None:
    """Trace f(input, weights) of one tower; the archive holds no weights."""

    def tower(value: Tensor, weights: dict[str, Tensor]) -> Tensor:
        with _weights_of(network, weights):
            return network.encode_frames(value) if visual else network.encode_text(value)

    names = _names(network, visual=visual)
    weights = {n: p.detach() for n, p in network.named_parameters() if n in names}
    with warnings.catch_warnings():
        # Tracing is deprecated, and still the only form of TorchScript that takes weights as input;
        # it warns of every size that becomes a constant: only the batch is meant to vary.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(tower, (example, weights), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(path))
    _drop_debug_records(path)


def _drop_debug_records(path: Path) -> None:
    """Rewrite an archive without its map to source files: it names folders of this machine.

    Without it, the same network also gives the same bytes.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    # The writer adds these itself.
    own = (".data/", "version", "byteorder")
    kept = [
        (name, reader.get_record(name))
        for name in reader.get_all_records()
        if not name.endswith(".debug_pkl") and not name.startswith(own)
    ]
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, record in kept:
        writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def _names(network: VideoCLIP, *, visual: bool) -> frozenset[str]:
    """State-dict names of one tower's weights. The logit scale is outside of both graphs."""
    return frozenset(
        name
        for name, _ in network.named_parameters()
        if name.startswith(VISUAL) == visual and name != "logit_scale"
    )


@contextmanager
def _ready(network: VideoCLIP) -> Iterator[None]:
    if next(network.parameters()).device.type != "cpu":
        raise ValueError("export: move the network to the CPU first")
    with torch.no_grad():
        yield


@contextmanager
def _weights_of(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the network run on other tensors. (`torch.func.functional_call` refuses to be traced.)"""
    own = []
    for name, tensor in weights.items():
        owner, _, leaf = name.rpartition(".")
        parameters: dict[str, Any] = network.get_submodule(owner)._parameters
        own.append((parameters, leaf, parameters[leaf]))
        parameters[leaf] = tensor
    try:
        yield
    finally:
        for parameters, leaf, tensor in own:
            parameters[leaf] = tensor


def _make_external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=PLACEHOLDER)


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter remembers of source lines and paths of the machine it ran on."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = model.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]


def state_arrays(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights as contiguous float32 numpy arrays, ready for a weight file."""
    return {
        name: tensor.detach().cpu().float().contiguous().numpy() for name, tensor in weights.items()
    }
