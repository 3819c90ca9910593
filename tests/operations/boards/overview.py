"""Is it well?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import (
    ASKED,
    FAILED,
    GOOD_AT_ONE,
    SHED,
    of,
    quantile,
    rate,
    share,
    total,
)

OVERVIEW = Board(
    "overview",
    "vtag overview",
    {
        "Is it well?": (
            Panel(
                "Unreachable",
                "Instances that Prometheus cannot scrape.",
                {"": 'count(up{job="vtag"} == 0) or vector(0)'},
                shape="stat",
                steps={0: "green", 1: "red"},
            ),
            Panel(
                "Ready",
                "Instances whose /readyz says 200.",
                {"": total(of("vtag_ready"))},
                shape="stat",
                steps=GOOD_AT_ONE,
            ),
            Panel(
                "Requests",
                "A second, but for probes and scrapes.",
                {"": total(ASKED)},
                unit="reqps",
                shape="stat",
            ),
            Panel(
                "Videos",
                "Tagged or indexed a second: calls of the decoders.",
                {"": total(rate("vtag_decode_calls_total"))},
                unit="reqps",
                shape="stat",
            ),
            Panel(
                "Failed",
                "Share of answers that are 5xx, refusals for want of capacity included.",
                {"": share(f"({total(FAILED)} or vector(0))", total(ASKED))},
                unit="percentunit",
                shape="stat",
                steps={0: "green", 0.001: "orange", 0.01: "red"},
            ),
            Panel(
                "Refused",
                "Share of requests refused because they would have waited too long.",
                {"": share(f"({total(SHED)} or vector(0))", total(ASKED))},
                unit="percentunit",
                shape="stat",
                steps={0: "green", 0.01: "orange", 0.05: "red"},
            ),
            Panel(
                "/classify, p95",
                "95 % are answered sooner.",
                {
                    "": quantile(
                        0.95, "vtag_request_duration_seconds", matchers=('endpoint="/classify"',)
                    )
                },
                unit="s",
                shape="stat",
            ),
            Panel(
                "/search, p95",
                "95 % are answered sooner.",
                {
                    "": quantile(
                        0.95, "vtag_request_duration_seconds", matchers=('endpoint="/search"',)
                    )
                },
                unit="s",
                shape="stat",
            ),
            Panel(
                "Oldest in the queue",
                "How long the oldest work has waited for the encoder.",
                {"": f"max({of('vtag_queue_oldest_age_seconds')})"},
                unit="s",
                shape="stat",
                steps={0: "green", 2: "orange", 10: "red"},
            ),
            Panel(
                "λ",
                "Share of the original CLIP weights being served.",
                {"{instance}": of("vtag_lambda")},
                shape="stat",
            ),
            Panel(
                "Segments",
                "In the index, in the embedding space that is served.",
                {"": f"max({of('vtag_index_segments')})"},
                shape="stat",
            ),
            Panel(
                "Alerts",
                "That fire now.",
                {"": 'count(ALERTS{alertname=~"Vtag.*",alertstate="firing"}) or vector(0)'},
                shape="stat",
                steps={0: "green", 1: "red"},
            ),
        ),
        "Service level: 99.5 % answered without a fault of ours, 95 % of /classify in 2.5 s": (
            Panel(
                "Answered without a fault of ours",
                "Over five minutes and one hour, of all instances; the objective is 99.5 %.",
                {
                    "5 minutes": "1 - vtag:request_errors:ratio_rate5m",
                    "1 hour": "1 - vtag:request_errors:ratio_rate1h",
                    "objective": "vector(0.995)",
                },
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "/classify within 2.5 s",
                "Over five minutes and one hour, of all instances; the objective is 95 %.",
                {
                    "5 minutes": "vtag:classify_fast:ratio_rate5m",
                    "1 hour": "vtag:classify_fast:ratio_rate1h",
                    "objective": "vector(0.95)",
                },
                unit="percentunit",
                maximum=1,
            ),
        ),
        "Requests": (
            Panel(
                "Requests by endpoint",
                "A second, probes and scrapes included.",
                {"{endpoint}": total(rate("vtag_requests_total"), "endpoint")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Requests by outcome",
                "A second, by class of status; disconnected: the client left.",
                {"{outcome}": total(ASKED, "outcome")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Time to answer, p95 by endpoint",
                "From the first byte of a request.",
                {"{endpoint}": quantile(0.95, "vtag_request_duration_seconds", "endpoint")},
                unit="s",
            ),
            Panel(
                "Time to answer /classify",
                "How many answers took how long.",
                {
                    "{le}": total(
                        rate("vtag_request_duration_seconds_bucket", 'endpoint="/classify"'), "le"
                    )
                },
                unit="s",
                shape="heatmap",
            ),
            Panel(
                "Components",
                "Green: works, orange: by half, red: not.",
                {
                    "{component}": f"min by (component) ({of('vtag_component_up')}"
                    f" - 0.5 * {of('vtag_component_degraded')})"
                },
                shape="states",
                steps={0: "red", 0.5: "orange", 1: "green"},
            ),
            Panel(
                "Alerts",
                "Pending and firing.",
                {"": 'ALERTS{alertname=~"Vtag.*"}'},
                shape="alerts",
            ),
        ),
    },
)
