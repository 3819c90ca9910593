"""Which side is the bottleneck: decoding, the queue, or the network?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import mean, of, quantile, rate, share, total

PIPELINE = Board(
    "pipeline",
    "vtag pipeline",
    {
        "Which side is the bottleneck?": (
            Panel(
                "Busy share: decoders and encoder",
                "The one that is at 100 % limits the service; both below: nobody asks for more.",
                {
                    "decoders": f"avg({of('vtag:decode_busy:ratio_rate1m')})",
                    "encoder": f"avg({of('vtag:encoder_busy:ratio_rate1m')})",
                },
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Predicted wait",
                "Seconds of accepted work before a request sent now; what admission goes by.",
                {
                    "decoders": f"max({of('vtag_decode_backlog_seconds')})",
                    "encoder": f"max({of('vtag_encoder_backlog_seconds')})",
                    "lane {lane}": f"max by (lane) ({of('vtag_predicted_wait_seconds')})",
                },
                unit="s",
            ),
            Panel(
                "Where requests are",
                "Seconds of each stage spent a second: how many requests are in it on average.",
                {"{stage}": total(rate("vtag_stage_duration_seconds_sum"), "stage")},
                shape="stack",
            ),
            Panel(
                "Time of a stage, p95",
                "By stage of a request.",
                {"{stage}": quantile(0.95, "vtag_stage_duration_seconds", "stage")},
                unit="s",
            ),
        ),
        "Decoding": (
            Panel(
                "Wait and work of a video",
                "Mean time that a video waited for a decoder, and was decoded.",
                {
                    name: share(
                        total(rate(f"vtag_decode_{name}_seconds_total")),
                        total(rate("vtag_decode_calls_total")),
                    )
                    for name in ("wait", "busy")
                },
                unit="s",
                shape="stack",
            ),
            Panel(
                "Decode workers",
                "Those that run, and those that decode now.",
                {"{state}": total(of("vtag_decode_workers"), "state")},
            ),
            Panel(
                "Frames and seconds of video",
                "Given to the network, and the length of the videos they were taken from, a"
                " second.",
                {
                    "frames": total(rate("vtag_decoded_frames_total")),
                    "seconds of video": total(rate("vtag_decoded_video_seconds_total")),
                },
            ),
            Panel(
                "Frame slots",
                "In use, and waited for: more than none waited for is too few slots.",
                {"{state}": total(of("vtag_frame_slots"), "state")},
            ),
            Panel(
                "Memory of frames",
                "Of slots, and of the windows of decode workers.",
                {"{kind}": total(of("vtag_frame_arena_bytes"), "kind")},
                unit="bytes",
                shape="stack",
            ),
            Panel(
                "Decoding time over its prediction",
                "Of the last videos, by quantile: 1 is exact; what admission's honesty rests on.",
                {"{quantile}": f"max by (quantile) ({of('vtag_decode_prediction_ratio')})"},
            ),
        ),
        "Batches": (
            Panel(
                "Clips in a batch",
                "p50 and p95.",
                {
                    f"{kind}, p{int(100 * value)}": quantile(
                        value, "vtag_batch_items", matchers=(f'kind="{kind}"',)
                    )
                    for kind in ("clips", "texts")
                    for value in (0.5, 0.95)
                },
            ),
            Panel(
                "Fill of batches",
                "Mean size over the largest that fits.",
                {"{kind}": mean("vtag_batch_fill_ratio", "kind")},
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Batches by why they were no larger",
                "A second; idle: the device waited for work; full: work waits for the device.",
                {"{kind} {reason}": total(rate("vtag_batch_dispatch_total"), "kind", "reason")},
                shape="stack",
            ),
            Panel(
                "Wait and work of a batch",
                "Mean wait of the oldest work in a batch, and mean time of the batch itself.",
                {
                    "{kind} waits": mean("vtag_batch_wait_seconds", "kind"),
                    "{kind} runs": mean("vtag_batch_duration_seconds", "kind"),
                },
                unit="s",
            ),
            Panel(
                "Waiting for the encoder",
                "Clips and texts.",
                {"{kind}": total(of("vtag_queue_items"), "kind")},
                shape="stack",
            ),
            Panel(
                "Age of the oldest work",
                "That waits for the encoder now.",
                {"{kind}": f"max by (kind) ({of('vtag_queue_oldest_age_seconds')})"},
                unit="s",
            ),
        ),
        "Door": (
            Panel(
                "In flight",
                "Requests that were let in, by lane.",
                {"{lane}": total(of("vtag_inflight_requests"), "lane")},
                shape="stack",
            ),
            Panel(
                "Refused at the door",
                "A second, by reason.",
                {"{reason}": total(rate("vtag_rejected_total"), "reason")},
                unit="reqps",
                shape="stack",
            ),
            Panel(
                "Received",
                "Bytes of videos a second.",
                {"uploads": total(rate("vtag_upload_bytes_total"))},
                unit="Bps",
            ),
            Panel(
                "Clients that left",
                "A second, by the stage that their request had come to.",
                {"{stage}": total(rate("vtag_cancelled_total"), "stage")},
                unit="reqps",
                shape="stack",
            ),
        ),
    },
)
