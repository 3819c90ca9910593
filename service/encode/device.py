"""Where the networks run: the processor, or one graphics processor by number."""

import re
from dataclasses import dataclass
from typing import Final, Literal

_DEVICE: Final = re.compile(r"(cpu|cuda)(?::([0-9]{1,2}))?")


class DeviceError(Exception):
    """The device or its runtime is not there; the message is one line for the operator."""


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        kind: what it is.
        number: which of them, from 0.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    number: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.number}"


CPU: Final = Device()


def parse_device(text: str) -> Device:
    """Return the device that `text` names: ``cpu``, ``cuda`` (the first) or ``cuda:N``.

    Raises:
        DeviceError: it names none.
    """
    match = _DEVICE.fullmatch(text)
    if match is None or (match[1] == "cpu" and match[2] is not None):
        raise DeviceError(f"VTAG_DEVICE: must be cpu, cuda or cuda:N, not {text[:40]!r}")
    return CPU if match[1] == "cpu" else Device("cuda", int(match[2] or 0))
