"""docker-compose.yml as the machine of a test can carry it out: other hosts, ports and folders.

What a container would see is translated by an explicit mapping and by nothing else: a service and
its port become a free port of the loopback interface, a mounted path becomes a folder.
"""

import re
import shlex
import socket
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

COMPOSE = REPOSITORY / "docker-compose.yml"
DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"

_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


def interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    """Put variables in the place of `${NAME:-default}`, the only form that the file uses."""
    if isinstance(value, str):
        return _DEFAULT.sub(lambda found: environment.get(found[1]) or found[2], value)
    if isinstance(value, list):
        return [interpolated(item, environment) for item in value]
    if isinstance(value, dict):
        return {key: interpolated(item, environment) for key, item in value.items()}
    return value


def read_compose(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file, anchors resolved and variables put in, as `docker compose` would see it."""
    document: dict[str, Any] = interpolated(yaml.safe_load(COMPOSE.read_text()), environment or {})
    return document


def image_environment() -> dict[str, str]:
    """The variables that the last stage of the Dockerfile sets."""
    stage = DOCKERFILE.read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in stage.splitlines() if line.startswith("ENV ")]
    pairs = [word.partition("=") for line in lines for word in shlex.split(line)]
    return {name: value for name, _, value in pairs}


def image_entry_point() -> str:
    """`package.module:function` of the console script that the image runs."""
    found = re.search(r'^ENTRYPOINT \["([\w-]+)"\]$', DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    entry: str = scripts[found[1]]
    return entry


class Translation:
    """Where the hosts, ports and paths of the containers are on this machine.

    Args:
        document: of `read_compose`.
        ports: of each service the ports that it listens on in its container.
        volumes: an empty folder in which each named volume gets a folder.
    """

    def __init__(
        self, document: Mapping[str, Any], *, ports: Mapping[str, Iterable[int]], volumes: Path
    ) -> None:
        self._services = document["services"]
        self.volumes = {name: volumes / name for name in document["volumes"]}
        for folder in self.volumes.values():
            folder.mkdir()
        self.ports = dict(
            zip(
                [(service, port) for service, found in ports.items() for port in found],
                free_ports(sum(len(list(found)) for found in ports.values())),
                strict=True,
            )
        )

    def text(self, text: str, *, of: str) -> str:
        """Translate what the container of one service reads: addresses, then mounted paths."""
        for (service, port), here in self.ports.items():
            text = re.sub(rf"\b{service}:{port}\b", f"127.0.0.1:{here}", text)
            if service == of:
                text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{here}")
        for inside, outside in self.mounts(of).items():
            text = re.sub(rf"(?<![\w/.]){re.escape(inside)}(?![\w-])", str(outside), text)
        return text

    def mounts(self, service: str) -> dict[str, Path]:
        """Path in the container -> folder here."""
        found = {}
        for volume in self._services[service].get("volumes", []):
            source, inside = volume.split(":")[:2]
            here = REPOSITORY / source if source.startswith("./") else self.volumes[source]
            found[inside] = here.resolve()
        return found


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
