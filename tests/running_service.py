"""The service as an operator runs it: `python -m service` in a process of its own."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests.conftest import REPOSITORY

_START_SECONDS = 240.0  # it is watched for its end meanwhile; a busy machine is only slow
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class RunningService:
    """A service that was ready: where it listens, its process, what it printed and logged."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running_service(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    start_seconds: float = _START_SECONDS,
    module: str = "service",
) -> Iterator[RunningService]:
    """Start the service with its state in `folder`, wait until it is ready, interrupt it after use.

    Args:
        folder: an existing folder; the state goes into `folder/data`, the log into `folder/log`.
        environment: settings added to those of this process, e.g. VTAG_MODEL_STORE.
        start_seconds: how long it may take to get ready.
        module: what runs as the service.

    Raises:
        RuntimeError: it ended or was not ready in time; the message ends with its log.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "log"
    settings = {
        "VTAG_DATA_DIR": str(folder / "data"),
        "VTAG_PORT": str(port),
        **_index_settings(folder),
        **(environment or {}),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=REPOSITORY,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    service = RunningService(url=url, process=process, log=log)
    try:
        _wait_until_ready(service, seconds=start_seconds)
        yield service
    finally:
        _stop(process)


def _index_settings(folder: Path) -> dict[str, str]:
    """Settings of the index that VTAG_TEST_INDEX asks for; the same folder has the same one.

    Unset is the embedded Postgres; ``milvus`` adds a file of milvus-lite; a DSN names a server, on
    which each folder has a database of its own.
    """
    wanted = os.environ.get("VTAG_TEST_INDEX", "")
    if wanted == "milvus":
        return {"VTAG_VECTOR_URL": str(folder / "data" / "vectors.db")}
    if not wanted:
        return {}
    name = "e2e_" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    asyncio.run(_create_database(wanted, name))
    return {"VTAG_DATABASE_URL": urlsplit(wanted)._replace(path=f"/{name}").geturl()}


async def _create_database(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        with suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


def _wait_until_ready(service: RunningService, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and service.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/readyz", timeout=5).is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the service did not get ready:\n{service.log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    # As a terminal does on Ctrl-C: the whole group hears it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
