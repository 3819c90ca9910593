"""Metrics: one registry per application, values of other parts read when asked."""

import pytest

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
    metrics.watch("vtag_decode_workers", lambda: values)
    metrics.watch("vtag_worker_restarts", lambda: values)
    metrics.watch("vtag_decode_calls", lambda: {"": values["a"]})
    assert b'vtag_decode_workers{state="a"} 1.0' in metrics.render()
    values["a"] = 2.0
    assert b'vtag_worker_restarts_total{worker="a"} 2.0' in metrics.render()
    assert b"vtag_decode_calls_total 2.0" in metrics.render()


def test_only_what_is_declared_can_be_watched() -> None:
    """Or the table of metrics would lack it."""
    with pytest.raises(KeyError):
        Metrics().watch("vtag_of_nobody", dict)


def test_what_alerts_ask_for_is_there_from_the_start() -> None:
    """A counter that begins to exist at 1 never increased."""
    text = Metrics().render().decode()
    for line in (
        'vtag_rejected_total{reason="queue_full"} 0.0',
        'vtag_activations_total{outcome="refused"} 0.0',
        'vtag_batch_retries_total{cause="bad_output",kind="clips"} 0.0',
        'vtag_webhook_deliveries_total{outcome="dead"} 0.0',
    ):
        assert line in text


def test_everything_is_described() -> None:
    """Each family of the registry, with its type and, where it has samples, its labels."""
    metrics = Metrics()
    described = {each.name: each for each in metrics.described()}
    suffixes = {"counter": "_total", "info": "_info"}
    for family in metrics.registry.collect():
        if not family.name.startswith("vtag_"):
            continue
        each = described.pop(family.name + suffixes.get(family.type, ""))
        assert (each.kind, each.text) == (family.type, family.documentation)
        if family.type == "info":
            continue  # its labels are values, and nobody has given them yet
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(each.labels)
    assert described == {}


def test_labels_hold_nothing_that_callers_choose() -> None:
    """No label text, no name of a video, no key, no path."""
    known = {
        *("endpoint", "outcome", "lane", "reason", "stage", "code", "scores", "op", "kind"),
        *("cause", "name", "revision", "runtime", "precision", "device", "version", "av"),
        *("state", "component", "layer", "quantile", "worker", "work", "use", "result"),
    }
    assert {label for each in Metrics().described() for label in each.labels} <= known


def test_names_are_prometheus_names() -> None:
    """A prefix, base units, no colons."""
    for family in Metrics().registry.collect():
        assert ":" not in family.name
        assert family.name.startswith(("vtag_", "process_", "python_"))
        assert not family.name.endswith(("_ms", "_milliseconds"))
