"""Batches and devices as metrics."""

from collections.abc import Callable, Mapping, Sequence

from service.encode.dispatcher import BatchRecord
from service.encode.station import Station
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
        metrics.encoder_batches.labels(record.kind, record.reason).inc()
        metrics.encoder_batch_size.labels(record.kind).observe(record.size)
        metrics.encoder_batch_seconds.labels(record.kind).observe(record.seconds)
        metrics.encoder_queue_seconds.labels(record.kind).observe(record.queue_seconds)
        if record.outcome != "ok":
            metrics.encoder_batch_failures.labels(record.kind, record.outcome).inc()


def watch_devices(metrics: Metrics, now: Callable[[], Sequence[Station]]) -> None:
    """Show how each device does, by its place in VTAG_DEVICE; read when it is asked for."""

    def each(value: Callable[[Station], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {str(place): float(value(one)) for place, one in enumerate(now())}

    metrics.watch_gauge(
        "vtag_encoder_device_up",
        "1 if the device works: its worker runs, and gets on.",
        "device",
        each(lambda station: station.state == "ok"),
    )
    metrics.watch_gauge(
        "vtag_encoder_device_busy",
        "1 while a batch runs on the device.",
        "device",
        each(lambda station: station.busy),
    )
    metrics.watch_gauge(
        "vtag_encoder_device_silence_seconds",
        "Time since the worker of the device answered anything.",
        "device",
        each(lambda station: station.silent_seconds),
    )
    metrics.watch_counter(
        "vtag_encoder_device_restarts",
        "Workers of the device that died or were killed, and were replaced.",
        "device",
        each(lambda station: station.worker.restarts),
    )
    metrics.watch_counter(
        "vtag_background_encoder_seconds",
        "Time that devices spent on work in the background, one call at a time each.",
        "work",
        lambda: {"trial": sum(one.turns.background_seconds for one in now())},
    )
    metrics.watch_counter(
        "vtag_background_encoder_calls",
        "Calls of the encoder for work in the background.",
        "work",
        lambda: {"trial": float(sum(one.turns.background_calls for one in now()))},
    )
