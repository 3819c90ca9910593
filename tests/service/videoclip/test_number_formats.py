"""Weights in fewer bits: how far they are from what they were, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.videoclip.number_formats import Wanted, fit, quantize

MATRICES = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-(2.0**40), 2.0**40, width=32),
)


@given(weight=MATRICES, by_rows=st.booleans())
def test_rounding_is_at_most_half_a_step(weight: np.ndarray, by_rows: bool) -> None:
    """Each channel has its own step; its largest value keeps its size, and 0 stays 0."""
    shape = (weight.shape[0], 1) if by_rows else (1, weight.shape[1])
    steps, scale = quantize(weight, scale_shape=shape)
    assert steps.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == shape
    error = np.abs(steps.astype(np.float64) * scale - weight)
    assert np.all(error <= 0.5 * scale.astype(np.float64) * (1 + 1e-5))
    axis = 1 if by_rows else 0
    largest = np.abs(weight).max(axis=axis)
    normal = largest > 127 * 2 * np.finfo(np.float32).tiny
    assert np.all(np.abs(steps.astype(int)).max(axis=axis)[normal] == 127)
    assert np.all(steps[weight == 0] == 0)


@given(weight=MATRICES)
def test_channels_do_not_know_of_each_other(weight: np.ndarray) -> None:
    """A matrix is quantised as its rows are, one by one."""
    steps, scale = quantize(weight, scale_shape=(len(weight), 1))
    for row, expected, step in zip(weight, steps, scale, strict=True):
        found, alone = quantize(row[None], scale_shape=(1, 1))
        assert np.array_equal(found[0], expected)
        assert np.array_equal(alone[0], step)


def test_values_by_hand() -> None:
    """127 steps to the largest number of a row; a row of zeros has the scale 1."""
    weight = np.array([[12.7, -0.1, 0.16], [0, 0, 0], [-2, 1, 0.5]], np.float32)
    steps, scale = quantize(weight, scale_shape=(3, 1))
    assert steps.tolist() == [[127, -1, 2], [0, 0, 0], [-127, 64, 32]]
    assert scale[:, 0] == pytest.approx([0.1, 1, 2 / 127])


def test_each_weight_gets_the_format_that_the_graph_wants() -> None:
    """In its order, scales included; float32 is not copied, more weights are passed over."""
    weights = {
        "matrix": np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        "bias": np.array([1.0009765625, 3], np.float32),
        "number": np.array(7, np.float32),
        "other": np.zeros(1, np.float32),
    }
    found = fit(
        weights,
        [
            Wanted("number", number_format="float32", shape=()),
            Wanted("matrix", number_format="int8", shape=(3, 2)),
            Wanted("bias", number_format="float16", shape=(2,)),
            Wanted("matrix.scale", number_format="float32", shape=(3, 1)),
        ],
    )
    assert list(found) == ["number", "matrix", "bias", "matrix.scale"]
    assert found["number"].shape == ()
    assert np.shares_memory(found["number"], weights["number"])
    assert found["bias"].dtype == np.float16
    assert np.array_equal(found["bias"], weights["bias"])
    steps, scale = quantize(weights["matrix"], scale_shape=(3, 1))
    assert np.array_equal(found["matrix"], steps)
    assert np.array_equal(found["matrix.scale"], scale)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([("b", "float32", (2,))], r"missing: \['b'\]"),
        ([("a.scale", "float32", (2, 1)), ("a", "float32", (2, 2))], r"missing: \['a\.scale'\]"),
        ([("a", "int8", (2, 2))], r"missing: \['a\.scale'\]"),
        ([("a", "float32", (4,))], r"a: shape \(2, 2\), but the graph wants \(4,\)"),
        ([("a", "int8", (2, 2)), ("a.scale", "float32", (2,))], r"a scale of shape \(2,\)"),
        ([("a", "int8", (2, 2)), ("a.scale", "float32", (3, 1))], r"a scale of shape \(3, 1\)"),
        ([("large", "float16", (1,))], r"large: values that do not fit into float16"),
        ([("broken", "int8", (1,)), ("broken.scale", "float32", (1,))], r"is not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    wanted: list[tuple[str, str, tuple[int, ...]]], message: str
) -> None:
    """Missing, of another shape, or too large for the format."""
    weights = {
        "a": np.ones((2, 2), np.float32),
        "large": np.array([70000], np.float32),
        "broken": np.array([np.nan], np.float32),
    }
    with pytest.raises(ValueError, match=message):
        fit(weights, [Wanted(n, number_format=f, shape=s) for n, f, s in wanted])  # type: ignore[arg-type]
