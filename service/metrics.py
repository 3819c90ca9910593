"""What the service counts, in a registry of its own application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.metrics_table import Described, Kind
from service.readings import READINGS, Read, Watched

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_JOB_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_STAGE_BUCKETS = tuple(0.0005 * 2**power for power in range(17))  # 0.5 ms to 33 s
_SIZE_BUCKETS = tuple(2.0**power for power in range(11))  # 1 to 1024
_RATIO_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))

_REASONS: Final = (
    *("queue_full", "deadline", "quota", "too_large", "draining", "not_ready", "auth", "share"),
)
_SUFFIXES: Final[Mapping[Kind, str]] = {"counter": "_total", "info": "_info"}


class Metrics:
    """The instruments; labels are of low cardinality: no label text, no identifiers.

    Everything that is exported is declared here, or, if another part keeps the value, in
    `service.readings`. Names and buckets: Prometheus naming rules (base units, ``_total``), no
    colons.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._described: list[Described] = []
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._of_requests()
        self._of_answers()
        self._of_batches()
        self._of_weights()
        self._of_the_index()
        self._watched = {about.name: Watched(about) for about in READINGS}
        for about in READINGS:
            self.registry.register(self._watched[about.name])
            labels = () if about.label is None else (about.label,)
            self._describe(about.kind, about.name, about.text, labels)

    def _of_requests(self) -> None:
        self.requests = self._counter(
            "vtag_requests",
            "Answered requests by template of the path and class of status; `disconnected`: the"
            " client left.",
            "endpoint",
            "outcome",
        )
        self.request_seconds = self._histogram(
            "vtag_request_duration_seconds",
            "Time from the first byte to the answer.",
            "endpoint",
            buckets=_REQUEST_BUCKETS,
        )
        self.in_flight = self._gauge(
            "vtag_inflight_requests", "Requests let in and not answered.", "lane"
        )
        self.rejected = self._counter(
            "vtag_rejected", "Requests refused without any work for them.", "reason"
        )
        # Alerts ask for increases: what begins to exist at 1 has none.
        for reason in _REASONS:
            self.rejected.labels(reason)
        self.cancelled = self._counter(
            "vtag_cancelled", "Requests whose client left, by how far they had come.", "stage"
        )
        self.problems = self._counter(
            "vtag_problems",
            "Requests that ended with a problem, events that ended in an error included.",
            "code",
        )
        self.input_errors = self._counter(
            "vtag_input_errors", "Requests with input that cannot be used.", "code"
        )
        self.stage_seconds = self._histogram(
            "vtag_stage_duration_seconds",
            "Time of one stage of a request.",
            "stage",
            buckets=_STAGE_BUCKETS,
        )
        self.upload_bytes = self._counter("vtag_upload_bytes", "Bytes of videos.")

    def _of_answers(self) -> None:
        self.frames = self._counter("vtag_decoded_frames", "Frames given to the network.")
        self.video_seconds = self._counter(
            "vtag_decoded_video_seconds", "Length of the videos that were used."
        )
        self.labels = self._counter("vtag_labels", "Labels that were scored.")
        self.text_cache_hits = self._counter(
            "vtag_text_cache_hits", "Labels whose embedding was cached."
        )
        self.redis_seconds = self._histogram(
            "vtag_redis_duration_seconds",
            "Time of one call of Redis by the text cache, failed ones included.",
            "op",
            buckets=_STAGE_BUCKETS,
        )
        self.top_score = self._histogram(
            "vtag_top_score", "Score of the first tag.", "scores", buckets=_RATIO_BUCKETS
        )
        self.no_tag = self._counter("vtag_no_tag", "Answers without any tag.")

    def _of_batches(self) -> None:
        self.batches = self._counter(
            "vtag_batch_dispatch",
            "Batches by why they were no larger: all that waited (`idle`, `drained`), the best"
            " size (`full`), a deadline; or parts that are run again (`retry`).",
            "kind",
            "reason",
        )
        self.batch_items = self._histogram(
            "vtag_batch_items", "Clips, or texts, in one batch.", "kind", buckets=_SIZE_BUCKETS
        )
        self.batch_fill = self._histogram(
            "vtag_batch_fill_ratio",
            "Size of a batch over the largest that fits into the memory of the device.",
            "kind",
            buckets=_RATIO_BUCKETS,
        )
        self.batch_seconds = self._histogram(
            "vtag_batch_duration_seconds",
            "Time of one batch, from sending it to its answer.",
            "kind",
            buckets=_STAGE_BUCKETS,
        )
        self.batch_wait_seconds = self._histogram(
            "vtag_batch_wait_seconds",
            "How long the oldest work of a batch had waited for it.",
            "kind",
            buckets=_STAGE_BUCKETS,
        )
        self.batch_retries = self._counter(
            "vtag_batch_retries",
            "Batches of which something was run again or given up; memory: the size was halved.",
            "kind",
            "cause",
        )
        for kind in ("clips", "texts"):
            for cause in ("failure", "bad_output", "memory", "death"):
                self.batch_retries.labels(kind, cause)

    def _of_weights(self) -> None:
        self.model = self._info("vtag_model", "The artefact being served.", "name", "revision")
        self.encoder = self._info(
            "vtag_encoder",
            "What the networks run on.",
            *("runtime", "precision", "device"),
        )
        self.build = self._info(
            "vtag_build", "Versions of the service and of what opens videos.", "version", "av"
        )
        self.clip_weight = self._gauge(
            "vtag_lambda", "Share of the original CLIP weights being served."
        )
        self.lambda_switches = self._counter("vtag_lambda_switches", "Changes of lambda.")
        self.lambda_seconds = self._histogram(
            "vtag_lambda_switch_duration_seconds",
            "Time to build, check and swap weights.",
            buckets=_REQUEST_BUCKETS,
        )
        self.activations = self._counter(
            "vtag_activations", "Attempts to serve another artefact.", "outcome"
        )
        for outcome in ("activated", "refused"):
            self.activations.labels(outcome)
        self.activation_seconds = self._histogram(
            "vtag_activation_duration_seconds",
            "Time to start, check and swap in another artefact.",
            buckets=_REQUEST_BUCKETS,
        )

        self.build.info({"version": version("vtag"), "av": version("av")})

    def _of_the_index(self) -> None:
        self.index_videos = self._gauge("vtag_index_videos", "Videos in the index.")
        self.index_segments = self._gauge("vtag_index_segments", "Segments in the index.")
        self.media_bytes = self._gauge("vtag_media_bytes", "Bytes of the videos that are kept.")
        self.media_limit_bytes = self._gauge(
            "vtag_media_limit_bytes", "Most bytes of videos that are kept (VTAG_MEDIA_BYTES)."
        )
        self.jobs = self._gauge("vtag_jobs", "Jobs of this service that have not ended.", "state")
        self.job_age_seconds = self._gauge(
            "vtag_job_age_seconds",
            "How long the oldest job that is due, and that this service can run, waits.",
        )
        self.jobs_ended = self._counter(
            "vtag_jobs_ended",
            "Jobs that ended, and attempts that were interrupted.",
            "kind",
            "outcome",
        )
        self.job_seconds = self._histogram(
            "vtag_job_duration_seconds",
            "Time of one attempt of a job.",
            "kind",
            buckets=_JOB_BUCKETS,
        )
        self.webhooks = self._counter(
            "vtag_webhook_deliveries",
            "Tries to deliver a webhook; dead: the last one failed.",
            "outcome",
        )
        for outcome in ("delivered", "failed", "dead"):
            self.webhooks.labels(outcome)
        self.component_up = self._gauge(
            "vtag_component_up", "1 if the component works, if only by half.", "component"
        )
        self.component_degraded = self._gauge(
            "vtag_component_degraded", "1 if the component works by half.", "component"
        )
        self.ready = self._gauge("vtag_ready", "1 if /readyz would say so.")

    def watch(self, name: str, read: Read) -> None:
        """Show what ``read`` returns, a value for each value of the label, when it is asked for.

        Args:
            name: of one of `service.readings`.
            read: label -> value; of a reading without a label, the key does not matter.

        Raises:
            KeyError: it is not declared there.
        """
        self._watched[name].read = read

    def described(self) -> Sequence[Described]:
        """Return everything that is exported of the service's own."""
        return tuple(self._described)

    def render(self) -> bytes:
        """Return the exposition of everything."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self._describe("counter", name, text, labels)
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self._describe("gauge", name, text, labels)
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        self._describe("histogram", name, text, labels, buckets)
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _info(self, name: str, text: str, *labels: str) -> Info:
        self._describe("info", name, text, labels)
        return Info(name, text, registry=self.registry)

    def _describe(
        self,
        kind: Kind,
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...] = (),
    ) -> None:
        full = name + _SUFFIXES.get(kind, "")
        self._described.append(Described(full, kind, labels, text, buckets))
