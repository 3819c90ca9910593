"""Requests made of the OpenAPI document: whatever it allows or forbids, there is no 5xx."""

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.running_service import RunningService

_EXAMPLES = 5
"""Of each operation and mode: some seconds in all."""


@pytest.fixture
def url(service: RunningService) -> Iterator[str]:
    """The service of the other tests, with the λ that they expect afterwards."""
    before = httpx.get(f"{service.url}/lambda", timeout=60).json()["lambda"]
    yield service.url
    httpx.put(f"{service.url}/lambda", json={"lambda": before}, timeout=60).raise_for_status()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_of_the_document_makes_the_service_fail(url: str, mode: GenerationMode) -> None:
    """Valid ones and invalid ones, of every route: answered below 500, faults as problems."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [found.ok() for found in cast(Any, schema).get_all_operations()]
    assert len(operations) > 20
    failures: list[str] = []
    tried = sum(_try(operation, mode, failures) for operation in operations)
    assert failures == []
    assert tried == len(operations) if mode is GenerationMode.POSITIVE else tried > 5
    assert httpx.get(f"{url}/readyz", timeout=60).status_code == 200


def _try(operation: Any, mode: GenerationMode, failures: list[str]) -> bool:
    """Send requests; tell whether there were any: a path alone cannot be asked for wrongly."""

    @settings(
        max_examples=_EXAMPLES,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(timeout=60)
        kind = answer.headers.get("content-type", [""])[0]
        is_problem = kind == "application/problem+json"
        if answer.status_code >= 500 or (answer.status_code >= 400 and not is_problem):
            failures.append(f"{answer.status_code} {answer.text[:300]}\n{case.as_curl_command()}")

    try:
        ask()
    except Unsatisfiable:
        return False
    return True
