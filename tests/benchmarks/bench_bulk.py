"""`python -m tests.benchmarks.bench_bulk [--videos N]`: what indexing many short videos takes.

N videos (1,000) of 2 to 6 s at 320 x 240, of distinct content for the index, into an empty
embedded Postgres with the active artefact, two ways after each other:

- ray: `vtag index FOLDER --engine ray`, with the time of starting Ray apart;
- jobs: one `POST /videos/batch` with a URL each, from a server of files on loopback.

For both: videos and segments a second, and the processor time of decoding, encoding, database and
the rest, by process. Nothing is asserted: figures are for reading.
"""

from __future__ import annotations

import argparse
import os
import platform
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.file_server import file_server
from tests.running_service import running_service

_DRAWN = 20
_LOOK_SECONDS = 0.5


def main() -> None:
    """Draw the videos, index them both ways, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[2].partition("\n")[0])
    parser.add_argument("--videos", type=int, default=1000)
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {asked.videos} videos", flush=True)
    with tempfile.TemporaryDirectory(prefix="vtag-bulk-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        films = folder / "films"
        films.mkdir()
        contents = draw(films, count=asked.videos)
        ray(films, folder / "ray")
        jobs(contents, folder / "jobs")


def draw(folder: Path, *, count: int) -> dict[str, bytes]:
    """Files of a few videos with a different box of free space at the end of each."""
    drawn = [
        draw_video(
            folder / f"drawn{number}.mp4", seconds=2 + number / 5, width=320, height=240
        ).read_bytes()
        for number in range(_DRAWN)
    ]
    for path in folder.glob("drawn*"):
        path.unlink()
    found = {}
    for number in range(count):
        box = struct.pack(">I4sQ", 16, b"free", number)
        found[f"{number:05d}.mp4"] = drawn[number % _DRAWN] + box
        (folder / f"{number:05d}.mp4").write_bytes(found[f"{number:05d}.mp4"])
    return found


class Meter:
    """Processor seconds of a process and of all that it starts, by what they do."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._seen: dict[tuple[int, float], tuple[str, float]] = {}

    def look(self) -> None:
        """Take the times of all that run now; what ended keeps its last."""
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                times, line = process.cpu_times(), " ".join(process.cmdline())
                key = (process.pid, process.create_time())
            except psutil.NoSuchProcess:
                continue
            self._seen[key] = (_role(line), times.user + times.system)

    def seconds(self) -> dict[str, float]:
        """Role -> seconds."""
        found: defaultdict[str, float] = defaultdict(float)
        for role, seconds in self._seen.values():
            found[role] += seconds
        return found


def _role(line: str) -> str:
    if "decode.worker" in line or "Decoder" in line:
        return "decode"
    if "encode.worker" in line or "Encoder" in line:
        return "encode"
    return "database" if "postgres" in line else "rest"


@contextmanager
def metered(process: psutil.Process) -> Iterator[Meter]:
    """Look at it again and again meanwhile."""
    meter, end = Meter(process), threading.Event()

    def watch() -> None:
        while not end.wait(_LOOK_SECONDS):
            try:
                meter.look()
            except psutil.NoSuchProcess:
                return

    meter.look()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield meter
    finally:
        end.set()
        thread.join()


def ray(films: Path, state: Path) -> None:
    """By the command, in a process of its own."""
    state.mkdir(mode=0o755)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.bulk.command", "index", str(films)],
        cwd=REPOSITORY,
        env={**os.environ, "VTAG_DATA_DIR": str(state / "data"), "VTAG_LOG_LEVEL": "error"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with metered(psutil.Process(process.pid)) as meter:
        _, told = process.communicate()
    if process.returncode:
        raise SystemExit(told)
    print(f"ray: {time.perf_counter() - began:.0f} s with all starts", flush=True)
    print(f"  {[line for line in told.splitlines() if 'videos/s' in line][-1]}")
    show(meter)


def jobs(contents: dict[str, bytes], state: Path) -> None:
    """By the service."""
    state.mkdir(mode=0o755)
    with file_server(contents) as files:
        environment = {
            "VTAG_URL_INTERNAL": files.host,
            "VTAG_MEDIA_URL": "none",
            "VTAG_LOG_LEVEL": "error",
        }
        with (
            running_service(state, environment=environment) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
            metered(psutil.Process(service.process.pid)) as meter,
        ):
            before = meter.seconds()
            began = time.perf_counter()
            videos = [{"url": files.url(name), "external_id": name} for name in contents]
            answer = client.post("/videos/batch", json={"videos": videos})
            answer.raise_for_status()
            path = answer.headers["location"]
            while (job := client.get(path).json())["status"] in ("queued", "running"):
                time.sleep(_LOOK_SECONDS)
            seconds = time.perf_counter() - began
            meter.look()
    result = job["result"]
    segments = sum(video.get("segments") or 0 for video in result["videos"])
    print(
        f"jobs: {job['status']} in {seconds:.0f} s: {result['indexed']} indexed,"
        f" {result['failed']} failed; {segments} segments, {len(videos) / seconds:.2g} videos/s"
    )
    show(meter, before=before)


def show(meter: Meter, *, before: Mapping[str, float] | None = None) -> None:
    """Print processor seconds by role, and their shares."""
    known = before or {}
    seconds = {role: took - known.get(role, 0.0) for role, took in meter.seconds().items()}
    whole = sum(seconds.values())
    parts = ", ".join(
        f"{role} {took:.1f} s ({100 * took / whole:.0f} %)"
        for role, took in sorted(seconds.items(), key=lambda item: -item[1])
    )
    print(f"  processor time: {parts}", flush=True)


if __name__ == "__main__":
    main()
