"""λ interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.interpolation import interpolate

Arrays = dict[str, NDArray[np.generic]]


def two_ends() -> tuple[Arrays, Arrays]:
    """Weights of several types, with values that arithmetic would change."""
    generator = np.random.default_rng(0)
    clip: Arrays = {
        "visual.proj": generator.normal(size=(4, 3)).astype(np.float32),
        "half": generator.normal(size=5).astype(np.float16),
        "double": generator.normal(size=2),
        "ids": np.arange(3),
        "logit_scale": np.array(4.6052, dtype=np.float32),
        "odd": np.array([-0.0, math.nan, math.inf, 1e-42], dtype=np.float32),
    }
    tuned = {
        name: (array + array.dtype.type(1) if name != "ids" else array.copy())  # type: ignore[operator]
        for name, array in clip.items()
    }
    return clip, tuned


@pytest.mark.parametrize("clip_weight", [1, 1.0, 0, 0.0])
def test_the_ends_are_returned_bit_for_bit(clip_weight: float) -> None:
    """At 1 all bytes are CLIP's, at 0 the tuned model's: NaN, -0 and denormals included."""
    clip, tuned = two_ends()
    result = interpolate(clip, tuned, clip_weight=clip_weight)
    expected = clip if clip_weight == 1 else tuned
    assert list(result) == list(clip)
    for name, array in result.items():
        assert array.tobytes() == expected[name].tobytes()
        assert array.dtype == expected[name].dtype


@given(clip_weight=st.floats(0, 1))
def test_clip_weight_is_the_share_of_clip(clip_weight: float) -> None:
    """theta = w clip + (1 - w) tuned, in the type of the weights."""
    clip, tuned = two_ends()
    del clip["odd"], tuned["odd"]
    result = interpolate(clip, tuned, clip_weight=clip_weight)
    for name, array in result.items():
        first, second = clip[name].astype(np.float64), tuned[name].astype(np.float64)
        wide = clip_weight * first + (1 - clip_weight) * second
        tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12, "int64": 0}
        assert array.dtype == clip[name].dtype
        np.testing.assert_allclose(
            array.astype(np.float64), wide, atol=tolerance[str(array.dtype)], rtol=1e-6
        )


def test_equal_ends_stay_what_they_are() -> None:
    """A tower that was not tuned is bit for bit the same at every weight."""
    clip, _ = two_ends()
    del clip["odd"]
    for clip_weight in (0.1, 1 / 3, 0.7):
        result = interpolate(clip, clip, clip_weight=clip_weight)
        assert all(result[name].tobytes() == clip[name].tobytes() for name in clip)


def test_the_arguments_are_not_changed() -> None:
    """Interpolation may be called again with the same arrays."""
    clip, tuned = two_ends()
    del clip["odd"], tuned["odd"]
    ends = [*clip.values(), *tuned.values()]
    before = [array.tobytes() for array in ends]
    interpolate(clip, tuned, clip_weight=0.5)
    assert [array.tobytes() for array in ends] == before


def test_every_difference_is_listed() -> None:
    """Missing on either side, shape, type and unequal integers: all in one message."""
    clip, tuned = two_ends()
    del tuned["half"]
    tuned["extra"] = np.zeros(1)
    tuned["visual.proj"] = np.zeros((3, 4), dtype=np.float32)
    tuned["logit_scale"] = np.array(1.0)
    tuned["ids"] = np.array([0, 1, 3])
    with pytest.raises(ValueError, match="differ in 5 places") as caught:
        interpolate(clip, tuned, clip_weight=1.0)
    message = str(caught.value)
    for part in (
        "half is missing in the tuned model",
        "extra is missing in CLIP",
        "visual.proj has shape (4, 3) in CLIP, (3, 4)",
        "logit_scale has type float32 in CLIP, float64",
        "ids has type int64 and different values",
    ):
        assert part in message


@pytest.mark.parametrize("clip_weight", [-0.1, 1.1, math.nan, math.inf, -math.inf])
def test_a_weight_outside_of_zero_to_one_is_refused(clip_weight: float) -> None:
    """No extrapolation, no NaN."""
    clip, tuned = two_ends()
    with pytest.raises(ValueError, match=r"clip_weight: .* is not in \[0, 1\]"):
        interpolate(clip, tuned, clip_weight=clip_weight)
