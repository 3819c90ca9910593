"""What a newcomer does first, on a clone without torch: `make serve`, the printed lines, Ctrl-C.

Starts the service with `make serve`, waits until it has printed its three curl lines, runs each as
it stands, interrupts it as a terminal would, and looks for descendants that it left behind. Only
the standard library: nothing for tests is installed at this point.
"""

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 600.0  # the installation is part of it
STOP_SECONDS = 30.0
GONE_SECONDS = 1.0
LEAST_FAMILY = 5  # make, service, decoder, encoder, Postgres: else the search found too little
EXAMPLES = 3


def main() -> None:
    """Run the whole visit; exit with a message at the first thing that is not as promised."""
    if shutil.which("curl") is None:
        sys.exit("first start: curl is needed to run the lines that the service prints")
    data_dir = tempfile.mkdtemp(prefix="vtag-first-start-")
    environment = {**os.environ, "PORT": str(free_port()), "VTAG_DATA_DIR": data_dir}
    service = subprocess.Popen(
        ["make", "serve"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    before: set[Process] = set()
    try:
        for command in printed_examples(service):
            run_example(command)
    finally:
        before = family(service.pid)
        os.killpg(service.pid, signal.SIGINT)
        try:
            service.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)
            sys.exit(f"first start: still running {STOP_SECONDS:.0f} s after Ctrl-C")
    if len(before) < LEAST_FAMILY:
        sys.exit(f"first start: only {len(before)} processes served; what was looked for?")
    if left := left_behind(before, data_dir=data_dir):
        sys.exit("first start: left behind after Ctrl-C:\n" + "\n".join(left))
    shutil.rmtree(data_dir)
    print("first start: served, answered and gone", flush=True)


def printed_examples(service: subprocess.Popen[str]) -> list[str]:
    """The curl lines of the service's greeting, continuation lines joined."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=forward, args=(service, lines), daemon=True).start()
    deadline = time.monotonic() + START_SECONDS
    examples: list[str] = []
    unfinished = ""
    while len(examples) < EXAMPLES:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            sys.exit(f"first start: not ready after {START_SECONDS:.0f} s")
        if line is None:
            sys.exit("first start: the service ended before it was ready")
        text = unfinished + (line.strip() if unfinished else curl_of(line))
        if not text:
            continue
        unfinished = text.removesuffix("\\") if text.endswith("\\") else ""
        if not unfinished:
            examples.append(text)
    return examples


def curl_of(line: str) -> str:
    """The curl command of a printed line, behind a word like "classify:" or not; else nothing."""
    found = re.match(r"\s*(?:\w+:\s*)?(curl .*)", line)
    return found.group(1).strip() if found else ""


def forward(service: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Show what the service prints and hand it on; None at the end. Runs until the pipe closes."""
    assert service.stdout is not None
    for line in service.stdout:
        print(line, end="", flush=True)
        lines.put(line)
    lines.put(None)


def run_example(command: str) -> None:
    """Run one printed line; its answer has to be JSON and not a problem."""
    print(f"$ {command}", flush=True)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    print(done.stdout[:2000], flush=True)
    if done.returncode != 0:
        sys.exit(f"first start: exit code {done.returncode}\n{done.stderr}")
    answer = json.loads(done.stdout)
    if isinstance(answer.get("status"), int):  # RFC 9457: only problems carry their status
        sys.exit("first start: the example was answered with a problem")


@dataclass(frozen=True)
class Process:
    """One process; the start time (clock ticks after boot) tells it from a later one of its id."""

    number: int
    started: int
    parent: int
    command: str


def processes() -> Iterator[Process]:
    """Every process that runs; those that have ended and wait for their parent are not among them.

    Source: proc(5), /proc/PID/stat: fields 3 (state), 4 (ppid) and 22 (starttime).
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(bytes(1), b" ")
        except OSError:  # gone meanwhile
            continue
        if fields[0] not in "ZX":
            yield Process(
                int(folder.name), int(fields[19]), int(fields[1]), command.decode(errors="replace")
            )


def family(number: int) -> set[Process]:
    """The process of this id and all its descendants, whatever group or environment they have."""
    running = list(processes())
    found = {each for each in running if each.number == number}
    while (
        more := {each for each in running if each.parent in {one.number for one in found}} - found
    ):
        found |= more
    return found


def left_behind(before: set[Process], *, data_dir: str) -> list[str]:
    """What of a family runs after a moment, and any process whose command names the folder."""
    known = {(each.number, each.started) for each in before}
    end = time.monotonic() + GONE_SECONDS
    while True:
        left = [
            f"{each.number} {each.command}"
            for each in processes()
            if (each.number, each.started) in known or data_dir in each.command
        ]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
