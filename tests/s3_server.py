"""A real S3 server for tests: SeaweedFS, from the wheel that carries it, on loopback only."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

import httpx

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


class S3Server:
    """One server process with its data in `folder`; it lets everybody do everything.

    Raises:
        RuntimeError: it did not answer in time; the message ends with its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports(8)
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it with the data it has, and wait until it answers."""
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program(),
                    *("server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
                    *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
                    *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
                    *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}"),
                    *("-volume.max=50", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0"),
                    *("-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self._folder)},
                start_new_session=True,
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.put(f"{self.url}/ready", timeout=5).status_code in (200, 409):
                    return
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"no S3 server:\n{self._log.read_text()[-4000:]}")

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        httpx.put(f"{self.url}/{name}", timeout=60).raise_for_status()

    def stop(self) -> None:
        """Kill it; the data stays."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_SECONDS)


def program() -> str:
    """Path of the server's binary: of the PATH, or of the wheel."""
    found = shutil.which("weed") or shutil.which("weed", path=sysconfig.get_path("scripts"))
    if found is None:
        found = shutil.which("weed", path=str(Path(sys.executable).parent))
    if found is None:
        raise RuntimeError("no weed: install the extra `test`")
    return found


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
