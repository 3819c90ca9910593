"""Is the cache warm, and which λ is served?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import GOOD_AT_ONE, of, quantile, rate, share, total

_LOOKED_UP = rate("vtag_text_cache_requests_total", 'result=~"memory|redis|miss"')

CACHE = Board(
    "cache",
    "vtag cache and λ",
    {
        "Text vectors": (
            Panel(
                "Found in a cache",
                "Share of the text vectors that needed no encoder.",
                {
                    "memory or Redis": share(
                        total(rate("vtag_text_cache_requests_total", 'result=~"memory|redis"')),
                        total(_LOOKED_UP),
                    )
                },
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Where text vectors came from",
                "A second; miss: the encoder made them.",
                {"{result}": total(rate("vtag_text_cache_requests_total"), "result")},
                shape="stack",
            ),
            Panel(
                "Kept in memory",
                "Vectors in the processes; VTAG_TEXT_CACHE_ENTRIES is the most.",
                {"{instance}": of("vtag_text_cache_entries")},
            ),
            Panel(
                "Redis",
                "Whether its last call succeeded; it is asked at each scrape.",
                {"{instance}": of("vtag_redis_up")},
                shape="states",
                steps=GOOD_AT_ONE,
            ),
            Panel(
                "Time of a call of Redis, p95",
                "Failed ones included.",
                {"{op}": quantile(0.95, "vtag_redis_duration_seconds", "op")},
                unit="s",
            ),
            Panel(
                "Failures of Redis",
                "Calls that failed, and values that were damaged, a second.",
                {
                    "{result}": total(
                        rate("vtag_text_cache_requests_total", 'result=~"redis_.*"'), "result"
                    )
                },
            ),
        ),
        "λ and artefacts": (
            Panel(
                "λ served",
                "Share of the original CLIP weights: 1 is CLIP itself, 0 the tuned weights.",
                {"{instance}": of("vtag_lambda")},
                maximum=1,
            ),
            Panel(
                "Changes of λ and of the artefact",
                "A minute.",
                {
                    "λ": f"60 * {total(rate('vtag_lambda_switches_total'))}",
                    "artefact {outcome}": (
                        f"60 * {total(rate('vtag_activations_total'), 'outcome')}"
                    ),
                },
            ),
            Panel(
                "Time to change λ, p95",
                "To build, check and swap the weights; requests go on meanwhile.",
                {"λ": quantile(0.95, "vtag_lambda_switch_duration_seconds")},
                unit="s",
            ),
            Panel(
                "Time to change the artefact, p95",
                "To start, check and swap in another.",
                {"artefact": quantile(0.95, "vtag_activation_duration_seconds")},
                unit="s",
            ),
            Panel(
                "Weights in memory",
                "λ that need not be built, and artefacts: two while one replaces the other.",
                {
                    "λ of {instance}": of("vtag_resident_lambdas"),
                    "artefacts of {instance}": of("vtag_engines"),
                },
            ),
            Panel(
                "Artefact served",
                "By name and revision.",
                {"{instance}: {name}@{revision}": of("vtag_model_info")},
                shape="states",
            ),
        ),
        "What is answered": (
            Panel(
                "Score of the first tag",
                "p10, p50 and p90 by kind of score: a drift at one λ is in the videos.",
                {
                    f"{{scores}}, p{int(100 * value)}": quantile(value, "vtag_top_score", "scores")
                    for value in (0.1, 0.5, 0.9)
                },
                maximum=1,
            ),
            Panel(
                "Labels and answers without a tag",
                "Labels that were scored, and answers in which no tag was above the threshold, a"
                " second.",
                {
                    "labels": total(rate("vtag_labels_total")),
                    "cached for a request": total(rate("vtag_text_cache_hits_total")),
                    "no tag": total(rate("vtag_no_tag_total")),
                },
            ),
        ),
    },
)
