"""Are the devices and the processes well?"""

from tests.operations.boards.panel import Board, Panel
from tests.operations.boards.query import GOOD_AT_ONE, mean, of, rate, total

DEVICES = Board(
    "devices",
    "vtag devices",
    {
        "Devices, by their place in VTAG_DEVICE": (
            Panel(
                "Devices that work",
                "Their worker runs, and gets on.",
                {"{instance} {device}": of("vtag_encoder_device_up")},
                shape="states",
                steps=GOOD_AT_ONE,
            ),
            Panel(
                "Busy share of a device",
                "Of the time; work in the background is not in it.",
                {
                    "{instance} {device}": total(
                        rate("vtag_encoder_device_busy_seconds_total"), "instance", "device"
                    )
                },
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Silence of a device",
                "Since its worker answered anything; an idle one is asked every two seconds.",
                {"{instance} {device}": of("vtag_encoder_device_silence_seconds")},
                unit="s",
            ),
            Panel(
                "Time of a batch",
                "Mean, from sending it to its answer.",
                {
                    "{instance} {kind}": mean("vtag_batch_duration_seconds", "instance", "kind"),
                },
                unit="s",
            ),
            Panel(
                "Largest batch that fits",
                "Clips, and tokens of texts: halved each time that a device has no memory.",
                {"{instance} {kind}": of("vtag_batch_cap")},
            ),
            Panel(
                "Work in the background",
                "Share of the time of the devices that trials and re-embedding took.",
                {"{instance}": total(rate("vtag_background_encoder_seconds_total"), "instance")},
                unit="percentunit",
            ),
        ),
        "Processes": (
            Panel(
                "Workers replaced",
                "A minute; they died or were killed.",
                {
                    "{instance} {worker}": "60 * "
                    + total(rate("vtag_worker_restarts_total"), "instance", "worker")
                },
            ),
            Panel(
                "Memory",
                "Resident, of the processes of a kind together.",
                {
                    "{instance} {worker}": of("vtag_worker_memory_bytes"),
                    "{instance} requests": of("process_resident_memory_bytes", 'job="vtag"'),
                },
                unit="bytes",
                shape="stack",
            ),
            Panel(
                "Processor time of the process that answers requests",
                "Cores; it decodes nothing and runs no network: at one core it is the limit.",
                {"{instance}": rate("process_cpu_seconds_total", 'job="vtag"')},
            ),
            Panel(
                "Open files",
                "Of the process that answers requests, and how many it may open.",
                {
                    "{instance}": of("process_open_fds", 'job="vtag"'),
                    "{instance} limit": of("process_max_fds", 'job="vtag"'),
                },
            ),
            Panel(
                "Sandbox of the decoders",
                "Green: seen to be refused sockets and processes, and foreign files.",
                {"{instance} {layer}": of("vtag_decode_sandbox")},
                shape="states",
                steps=GOOD_AT_ONE,
            ),
            Panel(
                "Versions",
                "What runs where.",
                {
                    "{instance}: vtag {version}, av {av}": of("vtag_build_info"),
                    "{instance}: {runtime} {precision} on {device}": of("vtag_encoder_info"),
                    "{instance}: {name}@{revision}": of("vtag_model_info"),
                },
                shape="states",
            ),
        ),
    },
)
