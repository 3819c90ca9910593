"""What goes wrong, by whose fault, and is somebody trying?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import ASKED, FAILED, of, rate, share, total

ERRORS = Board(
    "errors",
    "vtag errors and hostile input",
    {
        "Errors": (
            Panel(
                "Share of answers that are 5xx",
                "By endpoint; refusals for want of capacity included.",
                {"{endpoint}": share(total(FAILED, "endpoint"), total(ASKED, "endpoint"))},
                unit="percentunit",
            ),
            Panel(
                "Problems",
                "A second, by code; deploy/errors.md has them all.",
                {"{code}": total(rate("vtag_problems_total"), "code")},
                shape="stack",
            ),
            Panel(
                "Batches run again",
                "In five minutes, by cause: bad_output: embeddings were zero or not finite.",
                {
                    "{kind} {cause}": "sum by (kind, cause)"
                    f" (increase({of('vtag_batch_retries_total')}[5m]))"
                },
                shape="stack",
            ),
            Panel(
                "Workers replaced",
                "In five minutes.",
                {"{worker}": f"sum by (worker) (increase({of('vtag_worker_restarts_total')}[5m]))"},
                shape="stack",
            ),
        ),
        "Hostile input": (
            Panel(
                "Input that cannot be used",
                "A second, by code.",
                {"{code}": total(rate("vtag_input_errors_total"), "code")},
                shape="stack",
            ),
            Panel(
                "Share of requests with input that cannot be used",
                "Of all that were asked.",
                {"share": share(total(rate("vtag_input_errors_total")), total(ASKED))},
                unit="percentunit",
            ),
            Panel(
                "Decode workers killed",
                "In a minute, by how: what videos do to decoders costs their requests, not ours.",
                {"{reason}": f"sum by (reason) (increase({of('vtag_decode_killed_total')}[1m]))"},
                shape="stack",
            ),
            Panel(
                "Refused at the door",
                "A second, by reason; auth: no key, or a wrong one.",
                {"{reason}": total(rate("vtag_rejected_total"), "reason")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Paths that are not ours",
                "Requests a second: whoever looks for doors.",
                {
                    "{outcome}": total(
                        rate("vtag_requests_total", 'endpoint="unmatched"'), "outcome"
                    )
                },
                unit="reqps",
            ),
        ),
        "Disk": (
            Panel(
                "Disk of the uploads",
                "Free, and the reserve below which uploads are refused.",
                {
                    "{instance} free": of("vtag_spool_bytes", 'kind="free"'),
                    "{instance} reserve": of("vtag_spool_bytes", 'kind="reserve"'),
                    "{instance} size": of("vtag_spool_bytes", 'kind="size"'),
                },
                unit="bytes",
            ),
            Panel(
                "Free share of that disk",
                "At 0 no upload is taken.",
                {
                    "{instance}": of("vtag_spool_bytes", 'kind="free"')
                    + " / ignoring(kind) "
                    + of("vtag_spool_bytes", 'kind="size"')
                },
                unit="percentunit",
                maximum=1,
            ),
        ),
    },
)
