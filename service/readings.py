"""Values that other parts keep, as metrics: what each is called and means, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Read = Callable[[], Mapping[str, float]]
"""Value of the label -> value; of a reading without a label the key does not matter."""


@dataclass(frozen=True)
class Reading:
    """One metric whose values another part keeps.

    Attributes:
        kind: its type.
        name: without the `_total` of counters.
        label: name of its label; None: it has none.
        text: what it is.
    """

    kind: Literal["counter", "gauge"]
    name: str
    label: str | None
    text: str


READINGS: Final = (
    Reading(
        "gauge",
        "vtag_predicted_wait_seconds",
        "lane",
        "Time until a request sent now would be worked on.",
    ),
    # decoding
    Reading("gauge", "vtag_decode_workers", "state", "Decode workers by state."),
    Reading("counter", "vtag_decode_calls", None, "Calls of decode workers that were answered."),
    Reading("counter", "vtag_decode_busy_seconds", None, "Time that decode workers worked."),
    Reading(
        "counter", "vtag_decode_wait_seconds", None, "Time that videos waited for a decode worker."
    ),
    Reading(
        "counter",
        "vtag_decode_killed",
        "reason",
        "Decode workers that were killed, or died: at their time limit (`timeout`), by a signal or"
        " an exit of their own, because they did not answer while idle (`hung`), or because their"
        " client had left and they did not finish (`left`).",
    ),
    Reading(
        "gauge",
        "vtag_decode_sandbox",
        "layer",
        "1 if decode workers were seen to be refused sockets and processes, or foreign files.",
    ),
    Reading(
        "gauge",
        "vtag_decode_backlog_seconds",
        "stage",
        "Predicted time until a video sent now begins to decode.",
    ),
    Reading(
        "gauge",
        "vtag_decode_prediction_ratio",
        "quantile",
        "Actual decoding time over the predicted one, of the last videos.",
    ),
    Reading("gauge", "vtag_frame_slots", "state", "Frame slots by state."),
    Reading("gauge", "vtag_frame_arena_bytes", "kind", "Memory that decoded frames take."),
    # workers
    Reading(
        "gauge",
        "vtag_worker_silence_seconds",
        "worker",
        "Time since a worker answered anything (of several, the one silent longest); an idle one"
        " is asked every few seconds.",
    ),
    Reading(
        "counter",
        "vtag_worker_restarts",
        "worker",
        "Workers that died or were killed, and were replaced.",
    ),
    Reading(
        "gauge",
        "vtag_worker_memory_bytes",
        "worker",
        "Resident memory of the processes of a kind, together.",
    ),
    # devices, by their place in VTAG_DEVICE
    Reading(
        "gauge",
        "vtag_encoder_device_up",
        "device",
        "1 if the device works: its worker runs, and gets on.",
    ),
    Reading("gauge", "vtag_encoder_device_busy", "device", "1 while a batch runs on the device."),
    Reading(
        "counter",
        "vtag_encoder_device_busy_seconds",
        "device",
        "Time that batches took on the device.",
    ),
    Reading(
        "gauge",
        "vtag_encoder_device_silence_seconds",
        "device",
        "Time since the worker of the device answered anything.",
    ),
    Reading(
        "counter",
        "vtag_encoder_device_restarts",
        "device",
        "Workers of the device that died or were killed, and were replaced.",
    ),
    Reading(
        "counter",
        "vtag_background_encoder_seconds",
        "work",
        "Time that devices spent on work in the background, one call at a time each.",
    ),
    Reading(
        "counter",
        "vtag_background_encoder_calls",
        "work",
        "Calls of the encoder for work in the background.",
    ),
    # the queue of the encoder
    Reading(
        "gauge",
        "vtag_encoder_backlog_seconds",
        "stage",
        "Predicted time until clips or texts that came now would be encoded.",
    ),
    Reading("gauge", "vtag_queue_items", "kind", "Clips and texts that wait for the encoder."),
    Reading(
        "gauge",
        "vtag_queue_oldest_age_seconds",
        "kind",
        "How long the oldest clips or texts that wait for the encoder have waited; 0: none do.",
    ),
    Reading(
        "gauge",
        "vtag_batch_cap",
        "kind",
        "Largest batch that fits into the memory of the device: clips, and tokens of texts.",
    ),
    # weights and texts
    Reading("gauge", "vtag_resident_lambdas", "use", "Lambdas whose weights are in the encoder."),
    Reading(
        "gauge",
        "vtag_engines",
        "state",
        "Artefacts in memory: more than one while one replaces another.",
    ),
    Reading(
        "counter",
        "vtag_text_cache_requests",
        "result",
        "Text vectors by where they came from; failed calls of Redis, and values in it that were"
        " damaged.",
    ),
    Reading(
        "gauge", "vtag_text_cache_entries", None, "Text vectors kept in the memory of the process."
    ),
    Reading("gauge", "vtag_redis_up", "use", "1 if the last call of Redis succeeded."),
    # the disk
    Reading(
        "gauge",
        "vtag_spool_bytes",
        "kind",
        "The disk that uploads wait on: its size, what is free, and the reserve below which"
        " uploads are refused.",
    ),
)


class Watched(Collector):
    """One of them in a registry; without values until somebody says how they are read."""

    def __init__(self, about: Reading) -> None:
        self._about = about
        self.read: Read = dict

    def collect(self) -> Iterator[Metric]:
        """Read the values."""
        about = self._about
        labels = () if about.label is None else (about.label,)
        family = (CounterMetricFamily if about.kind == "counter" else GaugeMetricFamily)(
            about.name, about.text, labels=labels
        )
        for label, value in self.read().items():
            family.add_metric([label] if labels else [], value)
        yield family
