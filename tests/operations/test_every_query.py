"""A real Prometheus, the real service under load: every panel and every alert has data."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.faults.load import until
from tests.operations.programs import program
from tests.operations.prometheus import Prometheus, prometheus
from tests.operations.questions import questions
from tests.operations.world import World, everyday, world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

EMPTY = {
    r"overview / Alerts / ": "no alert is pending or fires",
    r"VtagAbsent": "asks for what is not there; instances are",
    r"pipeline / Clients that left / .*": "no client leaves",
    r"cache / Time to change the artefact, p95 / .*": "no artefact is activated",
    r"search / Jobs that ended / .*|search / Time of an attempt / .*": "no job is sent",
    r"search / Background calls of the encoder / seconds each": "no job calls the encoder",
    r"VtagJobsFail": "no job is sent",
    r"errors / Share of answers that are 5xx / .*": "nothing fails by a fault of ours",
}
"""Questions that may have no answer in this test, and why."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Prometheus]]:
    """The service and the Prometheus that watches it."""
    program("prometheus")
    with (
        world() as found,
        prometheus(tmp_path_factory.mktemp("prometheus"), target=found.target) as watcher,
    ):
        yield found, watcher


def test_every_query_has_data(watched: tuple[World, Prometheus]) -> None:
    """Or is on the list of those that may have none, with the reason; and those have none."""
    found, watcher = watched
    asked = (each for each in questions() if not _may_be_empty(each.place))
    silent = {each.place: each.expression for each in asked}

    def look() -> bool:
        for place, expression in tuple(silent.items()):
            if watcher.query(expression):
                del silent[place]
        return not silent

    with everyday(found) as load:
        until(lambda: load.statuses[200] > 20)
        for value in (0.25, 0.75):
            answer = httpx.put(f"{found.service.url}/lambda", json={"lambda": value}, timeout=60)
            assert answer.status_code == 200
        try:
            until(look, seconds=90)
        except AssertionError:
            pytest.fail("\n".join(f"{place}: {query}" for place, query in silent.items()))
    assert load.statuses[422] + load.statuses[415] > 0


def test_the_list_of_what_may_be_empty_is_current() -> None:
    """Each entry still names a question."""
    places = [each.place for each in questions()]
    for pattern in EMPTY:
        assert any(re.fullmatch(pattern, place) for place in places), pattern


def _may_be_empty(place: str) -> bool:
    return any(re.fullmatch(pattern, place) for pattern in EMPTY)
