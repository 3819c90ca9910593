"""How far a bulk load is, on one line of a terminal or a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

from service.bulk.checkpoint import Checkpoint
from service.bulk.writer import Writer

_TERMINAL_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 10.0


class Progress:
    """Prints videos done, their rate, the time left, and the share of each stage.

    Args:
        total: videos to do.
        checkpoint: counts what is done.
        writer: knows what the stages took.
        stream: where to.
    """

    def __init__(
        self, total: int, *, checkpoint: Checkpoint, writer: Writer, stream: TextIO = sys.stderr
    ) -> None:
        self._total = total
        self._checkpoint = checkpoint
        self._writer = writer
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = self._shown = time.monotonic()

    def show(self) -> None:
        """Print if the last line is old enough."""
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            self._shown = now
            self._print(end="" if self._terminal else "\n")

    def finish(self) -> None:
        """Print the last line."""
        self._print(end="\n")

    def _print(self, *, end: str) -> None:
        start = "\r" if self._terminal else ""
        after = "\x1b[K" if self._terminal else ""
        print(f"{start}{self.line()}{after}", end=end, file=self._stream, flush=True)

    def line(self) -> str:
        """Return what is to be said now."""
        outcomes = self._checkpoint.outcomes
        done = self._writer.videos
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = done / seconds
        left = f", {_span((self._total - done) / rate)} left" if 0 < done < self._total else ""
        stages = self._writer.seconds
        whole = sum(stages.values()) or 1.0
        shares = ", ".join(f"{name} {100 * took / whole:.0f} %" for name, took in stages.items())
        return (
            f"{done}/{self._total} videos in {_span(seconds)}{left}: {outcomes['indexed']} indexed,"
            f" {outcomes['known']} known, {outcomes['failed']} failed;"
            f" {self._writer.segments} segments, {rate:.2g} videos/s; work: {shares}"
        )


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
