"""Sampling options of the API in the words of the core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.asked import sampling_of
from service.schemas import SamplingOptions
from service.videoclip.manifest import Sampling


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"start": 1.0}, None),
        ({"frames": 4}, Sampling(mode="uniform", frames=4)),
        ({"mode": "uniform"}, Sampling(mode="uniform", frames=8)),
        ({"mode": "keyframes"}, Sampling(mode="keyframes", frames=8)),
        ({"mode": "fps", "fps": 4}, Sampling(mode="strided", frames=8, stride_seconds=0.25)),
        (
            {"mode": "strided", "fps": 2, "views": 2},
            Sampling(mode="strided", frames=8, views=2, stride_seconds=0.5),
        ),
        (
            {"mode": "timestamps", "timestamps": [0.0, 2.5]},
            Sampling(mode="explicit", frames=2, times_seconds=(0.0, 2.5)),
        ),
    ],
)
def test_options_become_a_sampling(options: dict[str, object], expected: Sampling | None) -> None:
    """Frames default to the model's."""
    assert sampling_of(SamplingOptions.model_validate(options), frames=8) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "fps"},
        {"fps": 3},
        {"mode": "uniform", "fps": 3},
        {"mode": "timestamps"},
        {"timestamps": [1.0]},
        {"mode": "timestamps", "timestamps": [1.0], "frames": 3},
        {"mode": "uniform", "views": 2},
        {"start": 2, "end": 2},
        {"start": -1},
        {"mode": "fps", "fps": 0},
        {"end": float("inf")},
        {"frames": 100_000},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object]) -> None:
    """Nothing that was asked for is silently dropped."""
    with pytest.raises(ValidationError):
        SamplingOptions.model_validate(options)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["uniform", "fps", "strided", "keyframes", "timestamps"]),
            "frames": st.integers(-1, 2000),
            "views": st.integers(0, 40),
            "fps": st.floats(),
            "timestamps": st.lists(st.floats(), max_size=4),
            "start": st.floats(),
            "end": st.floats(),
        },
    )
)
def test_whatever_passes_the_schema_is_a_sampling(options: dict[str, object]) -> None:
    """No combination gets through the border and fails behind it."""
    try:
        checked = SamplingOptions.model_validate(options)
    except ValidationError:
        return
    sampling_of(checked, frames=8)
