"""The list of metrics in deploy/ is the one of the service."""

from service.metrics import Metrics
from service.metrics_table import metrics_table
from tests.conftest import REPOSITORY


def test_the_document_lists_the_metrics_of_the_service() -> None:
    """`make metrics-table` after a change."""
    written = (REPOSITORY / "deploy" / "METRICS.md").read_text()
    assert written == metrics_table(Metrics().described()) + "\n"
