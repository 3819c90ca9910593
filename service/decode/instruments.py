"""Decode workers as metrics."""

from collections.abc import Callable

from service.decode.pool import DecodePool
from service.metrics import Metrics


def watch_decoders(metrics: Metrics, now: Callable[[], DecodePool]) -> None:
    """Show how the pool does that `now` returns; read when it is asked for."""
    metrics.watch("vtag_decode_workers", lambda: {"busy": now().busy, "alive": now().alive})
    metrics.watch("vtag_decode_calls", lambda: {"": now().backlog.calls})
    metrics.watch("vtag_decode_busy_seconds", lambda: {"": now().backlog.busy_seconds})
    metrics.watch("vtag_decode_wait_seconds", lambda: {"": now().backlog.wait_seconds})
    metrics.watch("vtag_decode_killed", lambda: now().killed)
    metrics.watch(
        "vtag_decode_sandbox",
        lambda: {
            "system_calls": float(now().protection.system_calls),
            "files": float(now().protection.files),
        },
    )
    metrics.watch("vtag_decode_backlog_seconds", lambda: {"decode": now().backlog_seconds})
    metrics.watch("vtag_decode_prediction_ratio", lambda: now().costs.quantiles())
