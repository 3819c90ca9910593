"""Is what was indexed found in time, and do jobs get on?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import GOOD_AT_ONE, mean, of, quantile, rate, share, total

_SEARCHES = 'endpoint="/search"'

SEARCH = Board(
    "search",
    "vtag search and jobs",
    {
        "Search": (
            Panel(
                "Searches",
                "A second, by class of status.",
                {"{outcome}": total(rate("vtag_requests_total", _SEARCHES), "outcome")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Time to answer /search",
                "p50, p95 and p99.",
                {
                    f"p{int(100 * value)}": quantile(
                        value, "vtag_request_duration_seconds", matchers=(_SEARCHES,)
                    )
                    for value in (0.5, 0.95, 0.99)
                },
                unit="s",
            ),
            Panel(
                "Index",
                "Whether Postgres answers; it is asked at each scrape.",
                {"{instance}": of("vtag_component_up", 'component="index"')},
                shape="states",
                steps=GOOD_AT_ONE,
            ),
            Panel(
                "Size of the index",
                "Videos and segments in the embedding space that is served.",
                {
                    "videos": f"max({of('vtag_index_videos')})",
                    "segments": f"max({of('vtag_index_segments')})",
                },
            ),
            Panel(
                "Kept videos",
                "Bytes, and the most that may be kept.",
                {
                    "kept": f"max({of('vtag_media_bytes')})",
                    "limit": f"max({of('vtag_media_limit_bytes')})",
                },
                unit="bytes",
            ),
            Panel(
                "Indexing",
                "Videos sent to the index a second, by class of status.",
                {"{outcome}": total(rate("vtag_requests_total", 'endpoint="/videos"'), "outcome")},
                unit="reqps",
                shape="stack",
            ),
        ),
        "Jobs": (
            Panel(
                "Jobs that have not ended",
                "Running and waiting.",
                {"{state}": total(of("vtag_jobs"), "state")},
                shape="stack",
            ),
            Panel(
                "Age of the oldest job",
                "Since it was due; of the service that waits longest.",
                {"oldest": f"max({of('vtag_job_age_seconds')})"},
                unit="s",
            ),
            Panel(
                "Jobs that ended",
                "In an hour, by kind and outcome.",
                {
                    "{kind} {outcome}": "sum by (kind, outcome)"
                    f" (increase({of('vtag_jobs_ended_total')}[1h]))"
                },
                shape="stack",
            ),
            Panel(
                "Time of an attempt",
                "Mean, by kind.",
                {"{kind}": mean("vtag_job_duration_seconds", "kind")},
                unit="s",
            ),
            Panel(
                "Webhooks",
                "Tries a second; failed ones are tried again, dead ones are not.",
                {"{outcome}": total(rate("vtag_webhook_deliveries_total"), "outcome")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Background calls of the encoder",
                "A second, and their mean time: what a request may have to wait for.",
                {
                    "calls": total(rate("vtag_background_encoder_calls_total")),
                    "seconds each": share(
                        total(rate("vtag_background_encoder_seconds_total")),
                        total(rate("vtag_background_encoder_calls_total")),
                    ),
                },
            ),
        ),
    },
)
