"""Kinds of values that settings are."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

MiB = 1024 * 1024
GiB = 1024 * MiB

MAX_DEVICES: Final = 16
"""Of one service: each is a process, and a value of a label of metrics."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=1)]


def _devices(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if len(names) > MAX_DEVICES:
        raise ValueError(f"names {len(names)} devices, must be at most {MAX_DEVICES}")
    for place, name in enumerate(names, start=1):
        if re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", name) is None:
            which = "" if len(names) == 1 else f"entry {place} is {name[:40]!r}: "
            raise ValueError(f"{which}must be cpu, cuda or cuda:N")
    if "cpu" in names and set(names) != {"cpu"}:
        raise ValueError("devices of one list must be alike, not cpu beside cuda")
    return ",".join(names)


Devices = Annotated[str, AfterValidator(_devices)]
"""Names of devices, comma-separated, without spaces."""


_RECEIVER: Final = re.compile(r"[A-Za-z0-9._\[\]:-]+:[0-9]{1,5}", re.ASCII)


def hosts_with_ports(text: str) -> frozenset[str]:
    """Split a setting of the type `HostsWithPorts`."""
    return frozenset(item.strip().lower() for item in text.split(",") if item.strip())


def _hosts_with_ports(value: str) -> str:
    if any(_RECEIVER.fullmatch(item) is None for item in hosts_with_ports(value)):
        raise ValueError("must be host:port, comma-separated")
    return value


HostsWithPorts = Annotated[str, AfterValidator(_hosts_with_ports)]
"""Hosts with their ports, comma-separated."""
