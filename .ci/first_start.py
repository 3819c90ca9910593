"""What a newcomer does first, on a clone without torch: `make serve`, the printed lines, Ctrl-C.

Starts the service with `make serve`, waits until it has printed its three curl lines, runs each as
it stands, interrupts it as a terminal would, and looks for processes that it left behind. Only the
standard library: nothing for tests is installed at this point.
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
from pathlib import Path

START_SECONDS = 600.0  # the installation is part of it
STOP_SECONDS = 30.0
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
    try:
        for command in printed_examples(service):
            run_example(command)
    finally:
        os.killpg(service.pid, signal.SIGINT)
        try:
            service.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)
            sys.exit(f"first start: still running {STOP_SECONDS:.0f} s after Ctrl-C")
    time.sleep(0.5)
    if left := left_behind(data_dir):
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


def left_behind(data_dir: str) -> list[str]:
    """Processes whose command line or environment names the data folder of this visit."""
    return [found for found in processes() if data_dir in found]


def processes() -> Iterator[str]:
    """Every readable process: its id, command line and environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            described = (
                (folder / "cmdline").read_bytes() + b" | " + (folder / "environ").read_bytes()
            )
        except OSError:  # gone meanwhile, or another user's
            continue
        yield f"{folder.name} {described.replace(bytes(1), b' ').decode(errors='replace')}"


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
