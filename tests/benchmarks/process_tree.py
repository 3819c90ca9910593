"""What the processes of a service use: memory and processor time, by what each of them does."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field

import psutil

MIB = 1 << 20


def role(process: psutil.Process) -> str:
    """Return what a process of the service does; empty: it has ended."""
    with contextlib.suppress(psutil.Error):
        line: list[str] = process.cmdline()
        module = next((word for word in line if word.startswith("service.")), "")
        if module.endswith("child_main"):  # its last argument is what runs in it
            return line[-1].split(".")[1]
        if module or line[-1:] == ["service"]:
            return "api"
        return "postgres" if "postgres" in process.name() else "others"
    return ""


@dataclass
class ProcessTree:
    """A service and all its descendants, also those that come and go."""

    pid: int
    _seconds: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)

    def rss_bytes(self) -> Counter[str]:
        """Resident memory by role; pages that several processes share count in each."""
        found: Counter[str] = Counter()
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                found[role(process)] += process.memory_info().rss
        return found

    def processor_seconds(self) -> Counter[str]:
        """Processor time by role since the start of each process that was ever seen here."""
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                known = self._seconds.get((process.pid, process.create_time()))
                name = known[0] if known else role(process)
                self._seconds[process.pid, process.create_time()] = name, times.user + times.system
        found: Counter[str] = Counter()
        for name, seconds in self._seconds.values():
            found[name] += seconds  # type: ignore[assignment]  # counters count in any number
        return found

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            service = psutil.Process(self.pid)
            return [service, *service.children(recursive=True)]
        return []
