"""What the service counts, in a registry of its own application."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_JOB_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_STAGE_BUCKETS = tuple(0.0005 * 2**power for power in range(17))  # 0.5 ms to 33 s
_SIZE_BUCKETS = tuple(2.0**power for power in range(11))  # 1 to 1024
_SCORE_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


Reading = Callable[[], Mapping[str, float]]


class _Watched(Collector):
    """Values that other objects keep."""

    def __init__(
        self,
        family: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        text: str,
        *,
        label: str,
        read: Reading,
    ) -> None:
        self._family = family
        self._name = name
        self._text = text
        self._label = label
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Read the values."""
        family = self._family(self._name, self._text, labels=[self._label])
        for label, value in self._read().items():
            family.add_metric([label], value)
        yield family


class Metrics:
    """The instruments; labels are of low cardinality: no label text, no identifiers.

    Names and buckets: Prometheus naming rules (base units, ``_total``), no colons.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "vtag_requests", "Answered requests.", ("endpoint", "outcome"), registry=registry
        )
        self.request_seconds = Histogram(
            "vtag_request_duration_seconds",
            "Time from the first byte to the answer.",
            ("endpoint",),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.rejected = Counter(
            "vtag_rejected", "Requests refused at the door.", ("reason",), registry=registry
        )
        self.cancelled = Counter(
            "vtag_cancelled",
            "Requests whose client left, by how far they had come.",
            ("stage",),
            registry=registry,
        )
        self.problems = Counter(
            "vtag_problems",
            "Requests that ended with a problem, events that ended in an error included.",
            ("code",),
            registry=registry,
        )
        self.input_errors = Counter(
            "vtag_input_errors",
            "Requests with input that cannot be used.",
            ("code",),
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "vtag_stage_duration_seconds",
            "Time of one stage of a request.",
            ("stage",),
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "vtag_inflight_requests",
            "Requests let in and not answered.",
            ("lane",),
            registry=registry,
        )
        self.frames = Counter(
            "vtag_decoded_frames", "Frames given to the network.", registry=registry
        )
        self.video_seconds = Counter(
            "vtag_decoded_video_seconds", "Length of the videos that were used.", registry=registry
        )
        self.upload_bytes = Counter("vtag_upload_bytes", "Bytes of videos.", registry=registry)
        self.text_cache_hits = Counter(
            "vtag_text_cache_hits", "Labels whose embedding was cached.", registry=registry
        )
        self.labels = Counter("vtag_labels", "Labels that were scored.", registry=registry)
        self.top_score = Histogram(
            "vtag_top_score",
            "Score of the first tag.",
            ("scores",),
            buckets=_SCORE_BUCKETS,
            registry=registry,
        )
        self.no_tag = Counter("vtag_no_tag", "Answers without any tag.", registry=registry)
        self.model = Info("vtag_model", "The artefact being served.", registry=registry)
        self.clip_weight = Gauge(
            "vtag_lambda", "Share of the original CLIP weights being served.", registry=registry
        )
        self.lambda_switches = Counter(
            "vtag_lambda_switches", "Changes of lambda.", registry=registry
        )
        self.lambda_seconds = Histogram(
            "vtag_lambda_switch_duration_seconds",
            "Time to build, check and swap weights.",
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.activations = Counter(
            "vtag_activations",
            "Attempts to serve another artefact.",
            ("outcome",),
            registry=registry,
        )
        self.activation_seconds = Histogram(
            "vtag_activation_duration_seconds",
            "Time to start, check and swap in another artefact.",
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.index_videos = Gauge("vtag_index_videos", "Videos in the index.", registry=registry)
        self.index_segments = Gauge(
            "vtag_index_segments", "Segments in the index.", registry=registry
        )
        self.jobs = Gauge(
            "vtag_jobs", "Jobs of this service that have not ended.", ("state",), registry=registry
        )
        self.jobs_ended = Counter(
            "vtag_jobs_ended",
            "Jobs that ended, and attempts that were interrupted.",
            ("kind", "outcome"),
            registry=registry,
        )
        self.webhooks = Counter(
            "vtag_webhook_deliveries",
            "Tries to deliver a webhook; dead: the last one failed.",
            ("outcome",),
            registry=registry,
        )
        self.job_seconds = Histogram(
            "vtag_job_duration_seconds",
            "Time of one attempt of a job.",
            ("kind",),
            buckets=_JOB_BUCKETS,
            registry=registry,
        )
        self.encoder_batches = Counter(
            "vtag_encoder_batches",
            "Batches by why they were no larger: all that waited, the best size, a deadline.",
            ("kind", "reason"),
            registry=registry,
        )
        self.encoder_batch_size = Histogram(
            "vtag_encoder_batch_size",
            "Clips, or texts, in one batch.",
            ("kind",),
            buckets=_SIZE_BUCKETS,
            registry=registry,
        )
        self.encoder_batch_seconds = Histogram(
            "vtag_encoder_batch_duration_seconds",
            "Time of one batch, from sending it to its answer.",
            ("kind",),
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.encoder_queue_seconds = Histogram(
            "vtag_encoder_queue_age_seconds",
            "How long the oldest work of a batch had waited for it.",
            ("kind",),
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.encoder_batch_failures = Counter(
            "vtag_encoder_batch_failures",
            "Batches of which something was run again or given up; memory: the size was halved.",
            ("kind", "cause"),
            registry=registry,
        )
        self.component_up = Gauge(
            "vtag_component_up", "1 if the component works.", ("component",), registry=registry
        )

    def watch_gauge(self, name: str, text: str, label: str, read: Reading) -> None:
        """Show what ``read`` returns, a value for each value of ``label``, when it is asked for."""
        self.registry.register(_Watched(GaugeMetricFamily, name, text, label=label, read=read))

    def watch_counter(self, name: str, text: str, label: str, read: Reading) -> None:
        """The same for values that only grow."""
        self.registry.register(_Watched(CounterMetricFamily, name, text, label=label, read=read))

    def render(self) -> bytes:
        """Return the exposition of everything."""
        return generate_latest(self.registry)
