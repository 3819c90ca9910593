"""No descriptor left: requests are told to come back, no video is blamed, and it passes."""

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import World
from tests.faults.load import tag, under_load, until

pytestmark = pytest.mark.timeout(400)

TOLD = {(503, "saturated"), (503, "index_unavailable"), (503, "encoder_unavailable")}


@pytest.fixture
def scarce(world: World) -> Iterator[None]:
    """The service may open one file more than it has open when it is idle."""
    process = psutil.Process(world.service.process.pid)
    soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
    taken = {int(link.name) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    next(free)
    process.rlimit(resource.RLIMIT_NOFILE, (next(free), hard))
    yield
    process.rlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("scarce")
def test_without_descriptors_no_video_is_blamed(world: World) -> None:
    """A connection takes the last one, so its upload has none: 503 with a time to come back."""
    refused = 0
    for _ in range(6):
        answer = tag(world.url, world.film)
        if answer.status_code != 200:
            assert (answer.status_code, answer.json()["code"]) in TOLD, answer.text
            assert answer.headers["retry-after"]
            refused += 1
    assert refused
    for each in world.workers("decode"):
        each.kill()  # those that follow may not be startable until there is room


def test_with_descriptors_all_is_well_again(world: World) -> None:
    """Workers that could not be started are started, and answers are right."""
    until(lambda: tag(world.url, world.film).status_code == 200, seconds=120)
    with under_load(world.url, world.film, world.expect) as answers:
        pass
    answers.require()
