"""`make drill`: break a running service in seven ways, and see each in a real Prometheus.

Each fault must show on the panel that its alert names, fire that alert within two scrape intervals,
and clear when it is over. The service, Redis, Postgres and Prometheus are real processes on
loopback; the rules are those of deploy/prometheus, hurried: scraped every second instead of every
five, ranges as many times shorter, and `for` 0, which would come on top. Prints a table; the exit
code is 1 if anything did not come about, and 2 where there is no Prometheus.

`--pictures FOLDER` draws what the boards showed meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.load import until
from tests.operations.faults import FAULTS, Fault
from tests.operations.pictures import Story, draw
from tests.operations.prometheus import EVALUATION_SECONDS, SCRAPE_SECONDS, Prometheus, prometheus
from tests.operations.questions import asked, panel_called
from tests.operations.rules import alerts
from tests.operations.world import World, everyday, world

_CALM_SECONDS = 15.0
_FIRE_SECONDS = 30.0
_CLEAR_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_SHOWN_SECONDS = 4.0  # for the pictures: a moment is no line
_BETWEEN_SECONDS = 4.0
_ALLOWED_SECONDS = 2 * SCRAPE_SECONDS + EVALUATION_SECONDS
"""Two scrapes; and Prometheus looks at its rules only so often."""


@dataclass(frozen=True)
class Outcome:
    """What became of one fault; times in seconds.

    Attributes:
        fault: which.
        began: `time.time()` when the world was broken.
        ended: when it was whole again.
        shown: until its panel showed it; None: it never did.
        fired: until its alert fired; None: it never did.
        cleared: from its end until the alert was gone; None: it never was.
    """

    fault: Fault
    began: float
    ended: float
    shown: float | None
    fired: float | None
    cleared: float | None

    @property
    def is_good(self) -> bool:
        """Whether all came about, in time."""
        in_time = self.fired is not None and self.fired <= _ALLOWED_SECONDS
        return in_time and self.shown is not None and self.cleared is not None

    def row(self) -> str:
        """Return a line of the table."""
        times = [
            "never" if each is None else f"{each:5.1f} s"
            for each in (self.shown, self.fired, self.cleared)
        ]
        panel = alerts()[self.fault.alert]["annotations"]["panel"]
        verdict = "as promised" if self.is_good else "NOT AS PROMISED"
        cells = [self.fault.name, panel, self.fault.alert, *times, verdict]
        return f"| {' | '.join(cells)} |"


def drill(found: World, watcher: Prometheus, fault: Fault) -> Outcome:
    """Break, look, mend, look again."""
    queries = panel_called(alerts()[fault.alert]["annotations"]["panel"]).queries.values()

    def shows() -> bool:
        return any(
            fault.shows(float(sample["value"][1]))
            for query in queries
            for sample in watcher.query(asked(query))
            if fault.series.items() <= sample["metric"].items()
        )

    with fault.happens(found):
        began = time.time()
        fired, shown = _until(
            [lambda: fault.alert in watcher.firing(), shows], seconds=_FIRE_SECONDS
        )
        if fired is not None:  # Prometheus knows when; we asked it a little later
            fired = max(0.0, watcher.firing().get(fault.alert, time.time()) - began)
        time.sleep(_SHOWN_SECONDS)
    ended = time.time()
    [cleared] = _until([lambda: fault.alert not in watcher.firing()], seconds=_CLEAR_SECONDS)
    return Outcome(fault, began, ended, shown, fired, cleared)


def _until(conditions: Sequence[Callable[[], bool]], *, seconds: float) -> list[float | None]:
    """Return the seconds until each held; None: it did not in time."""
    began = time.monotonic()
    found: list[float | None] = [None] * len(conditions)
    while None in found and time.monotonic() - began < seconds:
        for place, holds in enumerate(conditions):
            if found[place] is None and holds():
                found[place] = time.monotonic() - began
        time.sleep(_LOOK_SECONDS)
    return found


def run(chosen: Sequence[Fault], *, pictures: Path | None = None) -> list[Outcome]:
    """Drill one after the other and return what became of them; a line is printed for each.

    Faults that need a small disk are left out where none can be mounted, and a line says so.
    """
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="vtag-drill-") as name,
        world() as found,
        prometheus(Path(name), target=found.target) as watcher,
        everyday(found),
    ):
        until(lambda: bool(watcher.query("vtag:decode_busy:ratio_rate1m")))
        start = time.time()
        time.sleep(_CALM_SECONDS)  # of ordinary days, so that there is something to compare
        print("| fault | panel | alert | shown after | fired after | cleared after | |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for fault in chosen:
            if fault.needs_disk and not found.has_disk:
                print(f"{fault.name}: not drilled: needs the right to mount a small tmpfs")
                continue
            if fault.alert in watcher.firing():
                raise RuntimeError(f"{fault.alert} fires before its fault")
            outcomes.append(drill(found, watcher, fault))
            print(outcomes[-1].row(), flush=True)
            time.sleep(_BETWEEN_SECONDS)
        if pictures is not None:
            spans = [(each.fault.name, each.began, each.ended) for each in outcomes]
            draw(Story(watcher, start, time.time(), spans), pictures)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; return the exit code."""
    names = ", ".join(fault.name for fault in FAULTS)
    parser = argparse.ArgumentParser(prog="python -m tests.operations.drill")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw what was seen there")
    parser.add_argument(
        *("--only", "-o"), action="append", metavar="FAULT", help=f"one of {names}; may be repeated"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {fault.name for fault in FAULTS}
    if unknown:
        print(f"drill: --only {min(unknown)!r}: one of {names}", file=sys.stderr)
        return 2
    if shutil.which("prometheus") is None:
        print("drill: there is no prometheus: install the Debian package", file=sys.stderr)
        return 2
    chosen = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    outcomes = run(chosen, pictures=options.pictures)
    return int(len(outcomes) < len(chosen) or not all(each.is_good for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
