"""`python -m tests.benchmarks.bench_evaluation [MODEL_STORE]`: what a request loses to a job.

Classification, one after another, with and without an evaluation of λ that runs beside it. The two
take turns for several rounds, so that neighbours on the machine disturb both alike. Also how fast
the evaluation is while nobody asks for anything, and the largest memory of the encoder.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.benchmarks.__main__ import LABELS, report, timed
from tests.drawn_video import draw_video
from tests.running_service import RunningService, running_service

ROUNDS = 3
REQUESTS = 12
SET = 40
LAMBDAS = [round(step / 20, 4) for step in range(21)]


def main() -> None:
    """Print a line for each case."""
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        folder = Path(name)
        clip = draw_video(folder / "clip.mp4", seconds=4, width=320, height=240).read_bytes()
        environment = {"VTAG_MAX_UPLOADS": "64"}
        if len(sys.argv) > 1:
            environment["VTAG_MODEL_STORE"] = str(Path(sys.argv[1]).absolute())
        with (
            running_service(folder, environment=environment) as service,
            httpx.Client(base_url=service.url, timeout=120) as client,
        ):
            measure(service, client, clip)


def measure(service: RunningService, client: httpx.Client, clip: bytes) -> None:
    """Run all cases."""
    alone: list[float] = []
    beside: list[float] = []

    def classify() -> None:
        form: dict[str, Any] = {"files": {"video": clip}, "data": {"labels": LABELS}}
        client.post("/classify", **form).raise_for_status()

    classify()
    before = encoder_megabytes(service)
    largest = before
    calls = seconds = 0.0
    for _ in range(ROUNDS):
        alone += [timed(classify) for _ in range(REQUESTS)]
        job = send(client, clip)
        while status(client, job)["progress"]["stage"] != "evaluating":
            time.sleep(0.02)
        for _ in range(REQUESTS):
            beside.append(timed(classify))
            largest = max(largest, encoder_megabytes(service))
        if status(client, job)["status"] != "running":
            print("(the evaluation ended before the requests did)")
        client.delete(f"/jobs/{job}")
    calls, seconds = background(client)
    report("classify, alone", alone)
    report("classify, evaluation beside", beside)
    print(f"{'encoder calls in the background':34s} {1000 * seconds / calls:8.1f} ms each")
    began = time.perf_counter()
    job = send(client, clip)
    while status(client, job)["status"] not in ("succeeded", "failed"):
        largest = max(largest, encoder_megabytes(service))
        time.sleep(0.05)
    taken = time.perf_counter() - began
    print(f"{'evaluation, nobody asks':34s} {SET * len(LAMBDAS) / taken:8.1f} videos x lambdas / s")
    after = encoder_megabytes(service)
    print(
        f"{'encoder, memory':34s} {before:8.0f} MB before, {largest:.0f} MB at most,"
        f" {after:.0f} MB after"
    )


def send(client: httpx.Client, clip: bytes) -> str:
    """Send an evaluation; return the id of its job."""
    files = [("video", (f"{number}.mp4", clip)) for number in range(SET)]
    labels = "[" + ",".join(f'"{LABELS[number % 5]}"' for number in range(SET)) + "]"
    data = {"labels": labels, "lambdas": [f"{value:g}" for value in LAMBDAS]}
    answer = client.post("/lambda/evaluate", files=files, data=data)
    answer.raise_for_status()
    return str(answer.json()["id"])


def status(client: httpx.Client, job: str) -> dict[str, Any]:
    """A job as it stands."""
    found: dict[str, Any] = client.get(f"/jobs/{job}").json()
    return found


def background(client: httpx.Client) -> tuple[float, float]:
    """Calls of the encoder in the background so far, and the seconds that they took."""
    lines = client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("vtag_background"))
    label = '_total{work="trial"}'
    calls = float(values[f"vtag_background_encoder_calls{label}"])
    return calls, float(values[f"vtag_background_encoder_seconds{label}"])


def encoder_megabytes(service: RunningService) -> float:
    """Resident memory of the encoder process."""
    for child in psutil.Process(service.process.pid).children():
        if "service.encode.worker" in child.cmdline():
            return float(child.memory_info().rss) / 1e6
    return float(np.nan)


if __name__ == "__main__":
    main()
