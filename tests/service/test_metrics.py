"""Metrics: one registry per application, values of other parts read when asked."""

from service.metrics import Metrics


def test_applications_do_not_share_a_registry() -> None:
    """Two applications in one process count for themselves."""
    one, other = Metrics(), Metrics()
    one.labels.inc(3)
    assert b"vtag_labels_total 3.0" in one.render()
    assert b"vtag_labels_total 0.0" in other.render()


def test_watched_values_are_read_at_each_scrape() -> None:
    """Gauges and counters that other objects keep."""
    metrics = Metrics()
    values = {"a": 1.0}
    metrics.watch_gauge("vtag_some_state", "Text.", "state", lambda: values)
    metrics.watch_counter("vtag_some_restarts", "Text.", "worker", lambda: values)
    assert b'vtag_some_state{state="a"} 1.0' in metrics.render()
    values["a"] = 2.0
    assert b'vtag_some_restarts_total{worker="a"} 2.0' in metrics.render()


def test_names_are_prometheus_names() -> None:
    """A prefix, base units, no colons."""
    for family in Metrics().registry.collect():
        assert ":" not in family.name
        assert family.name.startswith(("vtag_", "process_", "python_"))
        assert not family.name.endswith(("_ms", "_milliseconds"))
