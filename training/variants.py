"""Graphs in fewer bits, made from the published ones: float16, and int8 with dynamic inputs.

Like the graphs they come from they hold no weights and serve every λ: the runtime mixes in float32
and then gives each initialiser the format that its type asks for
(`service.videoclip.number_formats`).
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.videoclip.manifest import VARIANT_FILES, VariantName
from service.videoclip.number_formats import SCALE
from training.errors import Refusal


class VariantError(Refusal):
    """A graph that cannot be written in another format."""


def write_variants(folder: Path, names: Iterable[VariantName] = tuple(VARIANT_FILES)) -> None:
    """Write variants of an artefact's ONNX graphs beside them. Raises VariantError."""
    makers: dict[VariantName, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
        "fp16": in_float16,
        "int8": in_int8,
    }
    for name in names:
        for file in VARIANT_FILES[name]:
            source = folder / file.replace(f".{name}.", ".")
            model = makers[name](onnx.load(source, load_external_data=False))
            (folder / file).write_bytes(model.SerializeToString())


def in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float16 throughout; its input and output stay float32.

    A runtime without a float16 kernel for an operator, such as ONNX Runtime on most processors,
    computes that one in float32. Norms keep their sums in float32 everywhere.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            _to_float16(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                raise VariantError(f"{node.op_type}: holds a tensor of its own")
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    inner = {
        value.name: f"{value.name}.float16"
        for value in (*graph.input, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    half, whole = TensorProto.FLOAT16, TensorProto.FLOAT
    before = [
        helper.make_node("Cast", [value.name], [inner[value.name]], to=half)
        for value in graph.input
        if value.name in inner
    ]
    after = [
        helper.make_node("Cast", [inner[value.name]], [value.name], to=whole)
        for value in graph.output
    ]
    _set_nodes(graph, [*before, *graph.node, *after])
    return model


def in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the products of its linear layers in int8; the rest stays float32.

    A weight has a scale for each output channel. What it is multiplied with is quantised as it
    comes, with a scale for each token: so a result does not depend on what shares its batch, as it
    would with ONNX's DynamicQuantizeLinear, which has one scale for a whole tensor. The last
    projection into the common space, of one token, costs nothing and stays as it is: measured on
    the demo model, it would be almost half of the error of a frame's vector.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    ways = _ways_to_weights(graph)
    nodes: list[Any] = []
    made: set[str] = set()
    for node in graph.node:
        if not (node.op_type == "MatMul" and node.input[1] in ways):
            nodes.append(node)
            continue
        (value, matrix), (out,) = node.input, node.output
        name, way = ways[matrix]
        parts = [*_quantize(value), *_scale(name, way)]
        nodes += [new for new in parts if new.output[0] not in made]
        made |= {new.output[0] for new in parts}
        scale = parts[-1].output[0]
        nodes += [
            helper.make_node("MatMulInteger", [f"{value}.int", matrix, _MIDDLE], [f"{out}.int"]),
            helper.make_node("Cast", [f"{out}.int"], [f"{out}.steps"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}.steps", scale], [f"{out}.scaled"]),
            helper.make_node("Mul", [f"{out}.scaled", f"{value}.step"], [out]),
        ]
    if not ways:
        raise VariantError("no linear layer to quantise")
    for name in dict(ways.values()):
        _declare_int8(graph, name)
    graph.initializer.extend(_CONSTANTS)
    _set_nodes(graph, nodes)
    return model


# A token's largest number is this many steps from 0; 128 stands for 0, so that all are positive:
# the kernels for unsigned by signed are many times faster than those for signed by signed.
_STEPS = 127
_MIDDLE = "int8.middle"
_CONSTANTS = (
    helper.make_tensor(_MIDDLE, TensorProto.UINT8, [], [128]),
    helper.make_tensor("int8.one", TensorProto.FLOAT, [], [1.0]),
    helper.make_tensor("int8.share", TensorProto.FLOAT, [], [1 / _STEPS]),
    # The step of a token of zeros, which are zeros after any division.
    helper.make_tensor("int8.smallest", TensorProto.FLOAT, [], [1e-30]),
    helper.make_tensor("int8.last", TensorProto.INT64, [1], [-1]),
)


def _quantize(value: str) -> list[Any]:
    """Nodes from float (..., n, in) to `value.int`, uint8, and `value.step`, float (..., n, 1)."""
    return [
        helper.make_node("Abs", [value], [f"{value}.abs"]),
        helper.make_node("ReduceMax", [f"{value}.abs", "int8.last"], [f"{value}.max"], keepdims=1),
        helper.make_node("Mul", [f"{value}.max", "int8.share"], [f"{value}.share"]),
        helper.make_node("Max", [f"{value}.share", "int8.smallest"], [f"{value}.step"]),
        helper.make_node("Div", [value, f"{value}.step"], [f"{value}.steps"]),
        helper.make_node(
            "QuantizeLinear", [f"{value}.steps", "int8.one", _MIDDLE], [f"{value}.int"]
        ),
    ]


def _scale(name: str, way: Iterable[Any]) -> list[Any]:
    """Nodes that do to a weight's scale what the graph does to the weight."""
    nodes = []
    source = f"{name}{SCALE}"
    for node in way:
        new = copy.deepcopy(node)
        new.name = ""
        new.input[0], new.output[0] = source, f"{node.output[0]}{SCALE}"
        source = new.output[0]
        nodes.append(new)
    return nodes


# What torch's linear layers become: a weight (out, in), or some of its rows, transposed.
_WAYS = (["Transpose"], ["Slice", "Transpose"])


def _ways_to_weights(graph: Any) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """What a product may read: its name -> the weight it is, and the nodes from there to it.

    Only weights of linear layers, that nothing but their products reads.
    """
    producers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    matrices = {
        tensor.name
        for tensor in graph.initializer
        if _is_external(tensor) and len(tensor.dims) == 2
    }
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if not _is_external(tensor)
    }

    def only_products(name: str) -> bool:
        return all(
            (node.op_type == "MatMul" and position == 1)
            or (_moves_rows(node, constants) and position == 0 and only_products(node.output[0]))
            for node, position in readers[name]
        )

    ways = {}
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        source, way = node.input[1], []
        while source in producers and _moves_rows(producers[source], constants):
            way.append(producers[source])
            source = producers[source].input[0]
        if way and source in matrices and only_products(source):
            way.reverse()
            if [step.op_type for step in way] not in _WAYS:
                raise VariantError(f"{source}: no way to give its scale to {node.input[1]}")
            ways[node.input[1]] = source, tuple(way)
    return ways


def _moves_rows(node: Any, constants: Mapping[str, Any]) -> bool:
    """Whether a node transposes a matrix, or takes some of its rows: a scale can follow it."""
    if node.op_type == "Transpose":
        return True
    axes = constants.get(node.input[3]) if node.op_type == "Slice" and len(node.input) > 3 else None
    return axes is not None and np.array_equal(axes, [0])


def _declare_int8(graph: Any, name: str) -> None:
    tensor = next(t for t in graph.initializer if t.name == name)
    scale = copy.deepcopy(tensor)
    scale.name = f"{name}{SCALE}"
    scale.dims[1] = 1
    tensor.data_type = TensorProto.INT8
    graph.initializer.append(scale)


def _to_float16(tensor: onnx.TensorProto) -> None:
    if _is_external(tensor):
        tensor.data_type = TensorProto.FLOAT16
        return
    with np.errstate(over="raise"):
        array = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _set_nodes(graph: Any, nodes: list[Any]) -> None:
    kept = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
