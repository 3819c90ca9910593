"""How parts become one vector."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.index.video_index import Vector
from service.routes.search_query import combine


def _unit(*values: float) -> Vector:
    vector = np.asarray(values, np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


_COMPONENTS = st.integers(-9, 9).map(float)
_VECTORS = st.tuples(_COMPONENTS, _COMPONENTS, _COMPONENTS).filter(any).map(lambda v: _unit(*v))
_WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 2.0])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.tuples(_VECTORS, _WEIGHTS, st.booleans()), min_size=1, max_size=5),
    factor=st.sampled_from([0.5, 3.0]),
)
def test_a_combination_is_the_direction_of_the_weighted_sum(
    parts: list[tuple[Vector, float, bool]], factor: float
) -> None:
    """Unit length, whatever the order of the parts and the scale of all weights together."""
    vectors = [vector for vector, _, _ in parts]
    weights = [-weight if subtract else weight for _, weight, subtract in parts]
    whole = sum(
        weight * vector.astype(float) for weight, vector in zip(weights, vectors, strict=True)
    )
    length = float(np.linalg.norm(whole))
    found = combine(vectors, weights)
    if found is None:
        assert length < 1e-3 * sum(map(abs, weights))
        return
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-6)
    assert found == pytest.approx(whole / length, abs=1e-5)
    again = combine(vectors[::-1], [factor * weight for weight in weights[::-1]])
    assert again == pytest.approx(found, abs=1e-5)


def test_one_part_is_itself() -> None:
    """To the last bit: a search by one thing is what it was before there were parts."""
    vector = _unit(1, 2, 3)
    assert combine([vector], [2.0]) is vector


def test_taking_away_lowers_what_is_taken_away() -> None:
    """A hit like the unwanted part gets a lower cosine than without it, the others a higher one."""
    beach, people = _unit(1, 0.5, 0.2), _unit(0.5, 1, 0.1)
    both = combine([beach, people], [1.0, -0.5])
    assert both is not None
    assert both @ people < beach @ people
    assert both @ beach > 0.8


def test_parts_that_cancel_each_other_have_no_direction() -> None:
    """Rounding would choose one: there is none instead."""
    vector = _unit(1, 2, 3)
    assert combine([vector, vector], [1.0, -1.0]) is None
