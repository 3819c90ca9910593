"""Which weights an ONNX graph wants: names of its external initialisers, without the onnx package.

An .onnx file is a protobuf message (github.com/onnx/onnx, onnx.proto3). Four fields are read:
ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.name = 8 and .data_location = 14
(1: EXTERNAL). ONNX Runtime itself tells no names before a session exists, and a session cannot
exist before every name has its weights.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.videoclip.manifest import ArtefactError

_GRAPH: Final = 7
_INITIALIZER: Final = 5
_NAME: Final = 8
_DATA_LOCATION: Final = 14
_EXTERNAL: Final = 1


def external_initializers(path: Path) -> tuple[str, ...]:
    """Return the names of the external initialisers of the graph at `path`, in its order.

    Raises:
        ArtefactError: the file is not an ONNX model, or carries weights itself.
    """
    try:
        data = memoryview(path.read_bytes())
        names: list[str] = []
        for graph in _messages(data, field=_GRAPH):
            for tensor in _messages(graph, field=_INITIALIZER):
                name = b"".join(bytes(value) for value in _messages(tensor, field=_NAME)).decode()
                if _number(tensor, field=_DATA_LOCATION) == _EXTERNAL:
                    names.append(name)
    except (ValueError, IndexError) as error:
        raise ArtefactError(path.name, expected="an ONNX model", found=str(error)) from error
    if not names:
        raise ArtefactError(path.name, expected="external initialisers", found="none")
    return tuple(names)


def _messages(data: memoryview, *, field: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == field and isinstance(value, memoryview):
            yield value


def _number(data: memoryview, *, field: int) -> int:
    return next((value for n, value in _fields(data) if n == field and isinstance(value, int)), 0)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(data):
            raise ValueError("a field that is longer than the file")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
