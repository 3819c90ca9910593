"""Batches as metrics."""

from service.encode.dispatcher import BatchRecord
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
