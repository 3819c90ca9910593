"""The service with instruments that can be silenced while it runs: SIGUSR2 silences, SIGUSR1 wakes.

For `bench_instruments`, which compares the two in one process: two processes differ by more than
what is measured.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from service.__main__ import main

_silent = False


def _set(silent: bool) -> None:
    global _silent
    _silent = silent


def _silenced(method: Callable[..., Any], *, answers_itself: bool) -> Callable[..., Any]:
    def instead(self: Any, *values: Any, **more: Any) -> Any:
        if _silent:
            return self if answers_itself else None
        return method(self, *values, **more)

    return instead


if __name__ == "__main__":
    for kind, names in (
        (Counter, ("inc", "labels")),
        (Gauge, ("set", "labels")),
        (Histogram, ("observe", "labels")),
    ):
        for name in names:
            instead = _silenced(getattr(kind, name), answers_itself=name == "labels")
            setattr(kind, name, instead)
    signal.signal(signal.SIGUSR1, lambda *_: _set(False))
    signal.signal(signal.SIGUSR2, lambda *_: _set(True))
    sys.exit(main())
