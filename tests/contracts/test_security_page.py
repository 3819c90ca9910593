"""SECURITY.md says of every promise what tests it."""

import re

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "SECURITY.md"


def test_every_promise_names_tests_that_exist() -> None:
    """A promise that nothing tests is not made, and a test that moves takes its link along."""
    promises = PAGE.read_text().split("\n- ")[1:]
    assert len(promises) > 5
    for promise in promises:
        tests = re.findall(r"\]\((tests/[\w/]+\.py)\)", promise)
        assert tests, promise.splitlines()[0]
        for test in tests:
            assert re.search(
                r"^(async )?def test_", (REPOSITORY / test).read_text(), re.MULTILINE
            ), test


def test_links_of_the_operations_pages_lead_somewhere() -> None:
    """Every relative link of SECURITY.md and of the pages in deploy/."""
    for page in [PAGE, *(REPOSITORY / "deploy").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
