"""The list of codes in deploy/ is the one of the service."""

from service.errors import problem_table
from tests.conftest import REPOSITORY


def test_the_document_lists_the_codes_of_the_service() -> None:
    """`python -m service errors > deploy/errors.md` after a change."""
    assert (REPOSITORY / "deploy" / "errors.md").read_text() == problem_table() + "\n"
