"""``python -m service``: check the settings, serve, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from service import logs
from service.api_keys import new_key
from service.app import Service, create_app
from service.connections import bounded
from service.departure import Departure
from service.errors import problem_table
from service.metrics import Metrics
from service.metrics_table import metrics_table
from service.routes.doorway import Doorway
from service.settings import Settings, SettingsError, load
from service.settings_help import help_text

logger = logging.getLogger("vtag")

_USAGE_ERROR = 2
_SAMPLES = Path("deploy/samples")


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us: it would raise them again before we have cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and end the application too when it was told twice: uvicorn would leave it out."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service; return the exit code (2: something the operator can put right)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["--help"], ["-h"]):
        print(help_text())
        return 0
    if arguments == ["--version"]:
        print(f"vtag {version('vtag')}")
        return 0
    if arguments == ["errors"]:
        print(problem_table())
        return 0
    if arguments == ["metrics"]:
        print(metrics_table(Metrics().described()))
        return 0
    if arguments[:1] == ["key"] and arguments[2:] in ([], ["--admin"]) and len(arguments) > 1:
        return _make_key(arguments[1], admin="--admin" in arguments)
    if arguments == ["key"]:
        return _refuse(["key needs a name: python -m service key NAME [--admin]"])
    if arguments:
        return _refuse([f"unknown argument {arguments[0]!r}; see python -m service --help"])
    try:
        settings = load()
    except SettingsError as error:
        return _refuse(error.lines)
    logs.configure(settings.log_level, style=settings.log_format)
    try:
        listener = _listen(settings)
    except OSError as error:
        return _refuse([_why_not(error, settings)])
    with listener:
        return asyncio.run(_serve(settings, listener))


def _refuse(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"vtag: {line}", file=sys.stderr)
    return _USAGE_ERROR


def _make_key(name: str, *, admin: bool) -> int:
    """Show a new key once, and the lines that VTAG_API_KEYS_FILE needs for it."""
    try:
        key, lines = new_key(name, admin=admin)
    except ValueError as error:
        return _refuse([str(error)])
    print(
        f"# {key}\n# The line above is the key: it is shown once. Add these to the file:\n{lines}"
    )
    return 0


def _listen(settings: Settings) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # asyncio sets TCP_NODELAY only where the protocol is named. Without it, headers and body of a
    # small answer are two segments: the second waits 40 ms for the first to be acknowledged.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except BaseException:
        listener.close()
        raise
    return listener


def _why_not(error: OSError, settings: Settings) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use; set VTAG_PORT to another port"
    return f"cannot listen on {where} (VTAG_HOST, VTAG_PORT): {error.strerror}"


async def _serve(settings: Settings, listener: socket.socket) -> int:
    if settings.allow_open and settings.api_keys_file is None:
        logger.warning("no keys: whoever reaches %s may use the service", settings.host)
    app = create_app(settings)
    server = _Server(
        uvicorn.Config(
            app,
            http=bounded(header_seconds=settings.header_timeout_seconds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        )
    )
    service: Service = app.state.service
    departure = Departure(server, service=service, drain_seconds=settings.drain_seconds)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, departure.hear, number)
    loop.add_signal_handler(signal.SIGHUP, _hang_up, app.state.door, departure)
    greeting = asyncio.create_task(_greet(app, server, settings, listener))
    try:
        await server.serve(sockets=[listener])
    finally:
        departure.cancel()
        await service.stop()  # again: nothing may stay behind, wherever it failed
        greeting.cancel()
        await asyncio.gather(greeting, return_exceptions=True)
    return 0 if service.progress.failure is None else _USAGE_ERROR


def _hang_up(door: Doorway, departure: Departure) -> None:
    """SIGHUP: of a terminal that was closed, the end; to a daemon, a word that files changed."""
    if sys.stdin is not None and sys.stdin.isatty():
        departure.hear(signal.SIGHUP)
    elif door.keys is not None:
        door.keys.look_now()


async def _greet(
    app: FastAPI, server: uvicorn.Server, settings: Settings, listener: socket.socket
) -> None:
    """Say how to use the service once it is ready, or why it never will be."""
    service: Service = app.state.service
    await service.progress.finished.wait()
    if service.progress.failure is not None:
        _refuse([service.progress.failure])
        server.should_exit = True
    elif service.progress.parts is not None:
        space = service.progress.parts.tagger.space
        print(f"vtag serves {space.id} on {_url(settings, listener)} (docs: /docs)")
        print(_examples(_url(settings, listener)), flush=True)


def _url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - shown, not bound
    return f"http://[{host}]:{port}" if ":" in host.strip("[]") else f"http://{host}:{port}"


def _examples(url: str) -> str:
    """Return three commands that work as they stand, if the sample videos are there."""
    samples = sorted(_SAMPLES.glob("*.mp4"))
    names = [f"a {sample.stem.replace('-', ' ')}" for sample in samples]
    note = ""
    if len(samples) < 2:
        samples = [Path("YOUR_VIDEO.mp4")] * 2
        names = ["a dog running", "a red car"]
        note = "\n(put a video of yours for YOUR_VIDEO.mp4)\n"
    # The last sample is tagged among the names of all, the first is indexed and found again.
    labels = " ".join(f"-F labels={shlex.quote(name)}" for name in names)
    query = shlex.quote(json.dumps({"query": names[0]}))
    return f"""
classify:  curl -s -F video=@{samples[-1]} {labels} {url}/classify
index:     curl -s -F video=@{samples[0]} {url}/videos
search:    curl -s -H 'Content-Type: application/json' -d {query} {url}/search
{note}"""


if __name__ == "__main__":
    sys.exit(main())
