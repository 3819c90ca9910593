"""λ switched fifty times under load: every answer is whole, and is of the λ that it names."""

import itertools

import httpx
import pytest

from tests.faults.conftest import World
from tests.faults.load import under_load

VALUES = (0.0, 0.35, 1.0, 0.5, 0.8)


@pytest.mark.timeout(400)
def test_fifty_switches_lose_and_mix_nothing(world: World) -> None:
    """Scores are compared with numpy's at the named λ, text tower included; no request fails."""
    before = httpx.get(f"{world.url}/lambda", timeout=60).json()["lambda"]
    served: set[float] = set()
    try:
        with under_load(world.url, world.film, world.expect) as answers:
            for value in itertools.islice(itertools.cycle(VALUES), 50):
                answer = httpx.put(f"{world.url}/lambda", json={"lambda": value}, timeout=60)
                assert (answer.status_code, answer.json()["lambda"]) == (200, value)
                served.add(value)
    finally:
        httpx.put(f"{world.url}/lambda", json={"lambda": before}, timeout=60)
    answers.require()
    named = {float(space.rpartition("/")[2]) for space in answers.good}
    assert named <= served | {before}
    assert len(named) >= 3
