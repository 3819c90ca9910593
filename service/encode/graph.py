"""Which weights an ONNX graph wants: its external initialisers, read without the onnx package.

An .onnx file is a protobuf message (github.com/onnx/onnx, onnx.proto3). These fields are read:
ModelProto.graph = 7, GraphProto.initializer = 5, and of a TensorProto dims = 1, data_type = 2,
name = 8 and data_location = 14 (1: EXTERNAL). ONNX Runtime itself tells no names before a session
exists, and a session cannot exist before every name has its weights.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.videoclip.manifest import ArtefactError
from service.videoclip.number_formats import NumberFormat, Wanted

_GRAPH: Final = 7
_INITIALIZER: Final = 5
_DIMS: Final = 1
_DATA_TYPE: Final = 2
_NAME: Final = 8
_DATA_LOCATION: Final = 14
_EXTERNAL: Final = 1
_FORMATS: Final[dict[int, NumberFormat]] = {1: "float32", 3: "int8", 10: "float16"}


def external_initializers(path: Path) -> tuple[Wanted, ...]:
    """Return the external initialisers of the graph at `path`, in its order.

    Raises:
        ArtefactError: the file is not an ONNX model, carries weights itself, or wants them in a
            format that is none of `NumberFormat`.
    """
    try:
        data = memoryview(path.read_bytes())
        wanted: list[Wanted] = []
        for graph in _messages(data, field=_GRAPH):
            for tensor in _messages(graph, field=_INITIALIZER):
                if _number(tensor, field=_DATA_LOCATION) == _EXTERNAL:
                    wanted.append(_wanted(tensor))
    except (ValueError, IndexError) as error:
        raise ArtefactError(path.name, expected="an ONNX model", found=str(error)) from error
    if not wanted:
        raise ArtefactError(path.name, expected="external initialisers", found="none")
    return tuple(wanted)


def _wanted(tensor: memoryview) -> Wanted:
    name = b"".join(bytes(value) for value in _messages(tensor, field=_NAME)).decode()
    number = _number(tensor, field=_DATA_TYPE)
    if number not in _FORMATS:
        raise ValueError(f"{name} of the data type {number}")
    return Wanted(name, number_format=_FORMATS[number], shape=tuple(_sizes(tensor)))


def _sizes(tensor: memoryview) -> Iterator[int]:
    for number, value in _fields(tensor):
        if number == _DIMS and isinstance(value, int):
            yield value
        elif number == _DIMS and isinstance(value, memoryview):  # the packed form
            position = 0
            while position < len(value):
                size, position = _varint(value, position)
                yield size


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
