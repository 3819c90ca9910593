"""Batches, their queue and the devices as metrics."""

import time
from collections.abc import Callable, Mapping, Sequence

from service.encode.dispatcher import BatchRecord
from service.encode.process import EncoderProcess
from service.encode.station import Station
from service.encode.work import KINDS
from service.metrics import Metrics


class BatchInstruments:
    """Counts the batches of an encoder; give it to `EncoderProcess.observe`.

    Args:
        metrics: where.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, record: BatchRecord) -> None:
        """Count one batch that ended."""
        metrics = self._metrics
        metrics.batches.labels(record.kind, record.reason).inc()
        metrics.batch_items.labels(record.kind).observe(record.size)
        metrics.batch_fill.labels(record.kind).observe(record.fill)
        metrics.batch_seconds.labels(record.kind).observe(record.seconds)
        metrics.batch_wait_seconds.labels(record.kind).observe(record.queue_seconds)
        if record.outcome != "ok":
            metrics.batch_retries.labels(record.kind, record.outcome).inc()


def watch_encoder(metrics: Metrics, now: Callable[[], EncoderProcess]) -> None:
    """Show how the encoder does that `now` returns, and its devices; read when it is asked for."""
    watch_devices(metrics, lambda: now().stations)
    metrics.watch(
        "vtag_worker_silence_seconds",
        lambda: {"encoder": max(one.silent_seconds for one in now().stations)},
    )
    metrics.watch("vtag_encoder_backlog_seconds", lambda: {"encode": now().backlog_seconds})
    metrics.watch(
        "vtag_queue_items",
        lambda: {kind: now().batcher.waiting_rows(kind) for kind in KINDS},
    )
    metrics.watch(
        "vtag_queue_oldest_age_seconds",
        lambda: {kind: now().batcher.oldest_seconds(kind, time.monotonic()) for kind in KINDS},
    )
    metrics.watch(
        "vtag_batch_cap",
        lambda: {kind: cap.value for kind, cap in now().batcher.caps.items()},
    )
    metrics.watch("vtag_resident_lambdas", lambda: {"requests": len(now().resident_clip_weights)})


def watch_devices(metrics: Metrics, now: Callable[[], Sequence[Station]]) -> None:
    """Show how each device does, by its place in VTAG_DEVICE; read when it is asked for."""

    def each(value: Callable[[Station], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {str(place): float(value(one)) for place, one in enumerate(now())}

    def background(value: Callable[[Station], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {"trial": float(sum(value(one) for one in now()))}

    metrics.watch("vtag_encoder_device_up", each(lambda station: station.state == "ok"))
    metrics.watch("vtag_encoder_device_busy", each(lambda station: station.busy))
    metrics.watch("vtag_encoder_device_busy_seconds", each(lambda station: station.busy_seconds))
    metrics.watch(
        "vtag_encoder_device_silence_seconds", each(lambda station: station.silent_seconds)
    )
    metrics.watch("vtag_encoder_device_restarts", each(lambda station: station.worker.restarts))
    metrics.watch(
        "vtag_background_encoder_seconds", background(lambda one: one.turns.background_seconds)
    )
    metrics.watch(
        "vtag_background_encoder_calls", background(lambda one: one.turns.background_calls)
    )
