"""What boards showed in a stretch of time, drawn: to be looked at without a Grafana."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from tests.operations.boards.overview import OVERVIEW
from tests.operations.boards.panel import Panel
from tests.operations.prometheus import SCRAPE_SECONDS, Prometheus
from tests.operations.questions import asked, panel_called

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = {
    "service-level.png": (
        "Overview / Answered without a fault of ours",
        "Overview / Requests by outcome",
        "Overview / Components",
    ),
    "pipeline.png": (
        "Pipeline / Where requests are",
        "Pipeline / Busy share: decoders and encoder",
        "Pipeline / Refused at the door",
    ),
    "cache-and-lambda.png": (
        "Cache and λ / λ served",
        "Cache and λ / Where text vectors came from",
        "Cache and λ / Redis",
    ),
    "errors.png": (
        "Errors and hostile input / Problems",
        "Errors and hostile input / Decode workers killed",
        "Errors and hostile input / Disk of the uploads",
    ),
}
_STATES = {0.0: "#d44a3a", 0.5: "#e8a33d", 1.0: "#4c9a52"}
_SCALES = {"bytes": (2**20, "MiB"), "percentunit": (0.01, "%"), "s": (1, "s"), "reqps": (1, "/s")}


@dataclass(frozen=True)
class Story:
    """What is drawn.

    Attributes:
        watcher: who saw it.
        start: `time.time()`.
        end: the same.
        spans: name, begin and end of what happened meanwhile.
    """

    watcher: Prometheus
    start: float
    end: float
    spans: Sequence[tuple[str, float, float]]


def draw(story: Story, folder: Path) -> None:
    """Write the pictures to `folder`, one for each board."""
    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for name, places in PICTURES.items():
        figure, axes = pyplot.subplots(
            len(places), 1, figsize=(10, 2.5 * len(places) + 0.5), sharex=True, layout="constrained"
        )
        for axis, place in zip(axes, places, strict=True):
            _panel(axis, panel_called(place), story)
            axis.set_title(place, loc="left", fontsize=9)
        for number, (label, began, ended) in enumerate(story.spans):
            for axis in axes:
                axis.axvspan(began - story.start, ended - story.start, color="0.88", lw=0, zorder=0)
            axes[0].annotate(
                label,
                xy=((began + ended) / 2 - story.start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 22 + 11 * (number % 2)),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        for axis in axes:
            for at in _switches(story):
                axis.axvline(at, color="#2f5fd0", lw=1.2, ls="--")
        axes[-1].set_xlabel("seconds; grey: while something is broken, dashed: λ was changed")
        axes[-1].set_xlim(0, story.end - story.start)
        figure.savefig(folder / name, dpi=90)
        pyplot.close(figure)


def _switches(story: Story) -> list[float]:
    """Return when λ changed, in seconds of the story."""
    [mark] = [each for each in OVERVIEW.json()["annotations"]["list"] if "λ" in each["name"]]
    query = asked(mark["expr"])
    found = story.watcher.between(query, start=story.start, end=story.end, step=SCRAPE_SECONDS)
    times = sorted(float(at) - story.start for each in found for at, _ in each["values"])
    return [at for place, at in enumerate(times) if place == 0 or at - times[place - 1] > 3]


def _panel(axis: Axes, panel: Panel, story: Story) -> None:
    scale, unit = _SCALES.get(panel.unit, (1, ""))
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for legend, query in panel.queries.items():
        for each in story.watcher.between(
            asked(query), start=story.start, end=story.end, step=SCRAPE_SECONDS
        ):
            label = _label(legend, each["metric"])
            times = [float(at) - story.start for at, _ in each["values"]]
            values = [float(value) / scale for _, value in each["values"]]
            lines[label] = times, values
    if panel.shape == "states":
        _states(axis, lines)
    elif panel.shape == "stack":
        _stack(axis, lines)
    else:
        for label, (times, values) in sorted(lines.items()):
            axis.plot(times, values, lw=1.4, label=label or None)
        values = [value for _, found in lines.values() for value in found if value == value]
        if not values or min(values) < max(values) / 2:  # else what matters is how much is missing
            axis.set_ylim(bottom=0)
    axis.set_ylabel(unit)
    axis.tick_params(labelsize=8)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _label(legend: str, labels: Mapping[str, str]) -> str:
    """Return a legend with the values of the labels that it names, but for where it runs."""

    def value(found: re.Match[str]) -> str:
        return "" if found[1] == "instance" else labels.get(found[1], "")

    return re.sub(r"\{(\w+)\}", value, legend).strip()


def _stack(axis: Axes, lines: dict[str, tuple[list[float], list[float]]]) -> None:
    """Areas above one another; a series that is not there counts as nothing."""
    moments = sorted({at for times, _ in lines.values() for at in times})
    known = {
        label: dict(zip(times, values, strict=True)) for label, (times, values) in lines.items()
    }
    # Series that are nothing all the time would only fill the legend.
    known = {label: found for label, found in sorted(known.items()) if any(found.values())}
    if known:
        heights = [[found.get(at, 0.0) for at in moments] for found in known.values()]
        axis.stackplot(moments, heights, labels=list(known), alpha=0.8, lw=0)


def _states(axis: Axes, lines: dict[str, tuple[list[float], list[float]]]) -> None:
    """One bar for each series, in the colour of its value."""
    names = sorted(lines)
    for row, name in enumerate(names):
        times, values = lines[name]
        for at, value in zip(times, values, strict=True):
            axis.barh(row, SCRAPE_SECONDS, left=at, color=_STATES.get(value, "0.6"), height=0.6)
    axis.set_yticks(range(len(names)), [name or "vtag" for name in names])
    axis.set_ylim(-0.8, max(len(names), 2) - 0.4)
