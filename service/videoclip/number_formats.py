"""Weights in the number format that a graph asks for: float32, float16, or int8 by channels.

Artefacts hold float32 weights, which can be mixed at any λ. A graph of another format says so in
the types of its external initialisers, and gets its weights from here, after the mixing: so one
graph of each format serves every λ, and no weights are stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

NumberFormat = Literal["float32", "float16", "int8"]
Arrays = Mapping[str, NDArray[np.generic]]

#: An int8 weight `w` comes with a float32 initialiser `w.scale`: w is about `w · w.scale`.
SCALE: Final = ".scale"
_LARGEST: Final = 127


@dataclass(frozen=True)
class Wanted:
    """An initialiser that a graph expects from outside."""

    name: str
    number_format: NumberFormat
    shape: tuple[int, ...]


def fit(weights: Arrays, wanted: Sequence[Wanted]) -> dict[str, NDArray[np.generic]]:
    """The initialisers of a graph, made from weights in float32.

    A scale has the number of dimensions of its weight, and the size 1 in those that share one:
    (out, 1) for a matrix (out, in) with a scale for each row.

    Args:
        weights: by state-dict name; more than the graph wants is fine.
        wanted: what the graph wants, scales included.

    Returns:
        One C-contiguous array for each of `wanted`, in its order. Those in float32 are not copied.

    Raises:
        ValueError: weights are missing (all are named), have another shape, or do not fit into
            the format.
    """
    scales = {item.name: item for item in wanted if item.name not in weights}
    names = {item.name for item in wanted if item.number_format == "int8"}
    missing = [name for name in scales if name.removesuffix(SCALE) not in names]
    missing += [f"{name}{SCALE}" for name in sorted(names) if f"{name}{SCALE}" not in scales]
    if missing:
        raise ValueError(f"weights are missing: {missing}")
    fitted: dict[str, NDArray[np.generic]] = {}
    for item in wanted:
        if item.name in scales:
            continue
        value = weights[item.name]
        if value.shape != item.shape:
            raise ValueError(f"{item.name}: shape {value.shape}, but the graph wants {item.shape}")
        if item.number_format == "int8":
            scale = scales[f"{item.name}{SCALE}"]
            fitted[item.name], fitted[scale.name] = quantize(value, scale_shape=scale.shape)
        else:
            fitted[item.name] = _cast(item, value)
    return {item.name: fitted[item.name] for item in wanted}


def quantize(
    weight: NDArray[np.generic], *, scale_shape: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight to integers from -127 to 127, times a scale for each channel.

    Symmetric: the largest value of a channel becomes 127 or -127, and 0 stays 0. The error is at
    most half the channel's scale. A channel of nothing but zeros has the scale 1, and one below
    the smallest normal number counts as such.

    Args:
        weight: of any shape and floating type.
        scale_shape: as that of the weight, and 1 where elements share a scale.

    Returns:
        int8 of the weight's shape, float32 of `scale_shape`.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.
    """
    fits = len(scale_shape) == weight.ndim and all(
        n in (1, size) for n, size in zip(scale_shape, weight.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"a scale of shape {scale_shape} for a weight of {weight.shape}")
    values = weight.astype(np.float32, copy=False)
    shared = tuple(axis for axis, n in enumerate(scale_shape) if n == 1)
    largest: NDArray[np.float32] = np.abs(values).max(axis=shared, keepdims=True)
    if not np.all(np.isfinite(largest)):
        raise ValueError("a weight is not finite")
    scale = (largest / _LARGEST).astype(np.float32)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    return np.rint(values / scale).astype(np.int8), scale


def _cast(item: Wanted, value: NDArray[np.generic]) -> NDArray[np.generic]:
    if item.number_format == "float32":
        return np.asarray(value, np.float32, order="C")
    with np.errstate(over="ignore"):
        cast = np.asarray(value, np.float16, order="C")
    if not np.all(np.isfinite(cast)):
        raise ValueError(f"{item.name}: values that do not fit into {item.number_format}")
    return cast
