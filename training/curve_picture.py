"""The trade-off curve as a picture: closed set against zero-shot, one point for each λ."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from service.videoclip.manifest import LambdaPoint

#: Of Okabe and Ito: told apart by colour-blind readers, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The same bytes for the same curve: no date, no random ids, text as text.
_STABLE: Any = {"svg.hashsalt": "vtag", "svg.fonttype": "none", "font.size": 9.0}


@dataclass(frozen=True)
class Line:
    """One line of the picture.

    name: in the legend. points: of a curve. y: the set on the vertical axis. x: the set on the
    horizontal one; None draws over λ itself. chosen: the λ that gets a star.
    """

    name: str
    points: tuple[LambdaPoint, ...]
    y: str
    x: str | None = None
    chosen: float | None = None


def draw_lines(
    lines: Sequence[Line], path: Path, *, x_label: str, y_label: str, title: str = ""
) -> None:
    """Write the picture as .svg or .png, the same bytes for the same lines and libraries.

    λ stands beside the points: of lines that share their x values, on the one whose points lie
    furthest apart. Spreads over seeds are drawn as bars. Raises ValueError for another suffix.
    """
    canvases: dict[str, Any] = {".svg": FigureCanvasSVG, ".png": FigureCanvasAgg}
    if path.suffix not in canvases:
        raise ValueError(f"{path.name}: neither .svg nor .png")
    with rc_context(_STABLE):
        figure = Figure(figsize=(6.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        numbered = _numbered(lines)
        for number, line in enumerate(lines):
            style: dict[str, Any] = {
                "color": _COLOURS[number % len(_COLOURS)],
                "zorder": 2 + number,
            }
            xs, ys = _values(line, line.x), _values(line, line.y)
            axes.errorbar(
                xs,
                ys,
                xerr=_spreads(line, line.x),
                yerr=_spreads(line, line.y),
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                linewidth=1.2,
                elinewidth=0.6,
                label=line.name,
                **style,
            )
            for point, x, y in zip(line.points, xs, ys, strict=True):
                if line.chosen is not None and point.clip_weight == line.chosen:
                    axes.plot([x], [y], marker="*", markersize=15, markeredgecolor="black", **style)
                if number in numbered:
                    axes.annotate(
                        f"{point.clip_weight:g}",
                        (x, y),
                        xytext=(3, 4),
                        textcoords="offset points",
                        fontsize=7,
                    )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if title:
            axes.set_title(title)
        axes.grid(linewidth=0.3)
        axes.legend(fontsize=8)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        aside = path.with_name(f".{path.name}.partial")
        canvases[path.suffix](figure).print_figure(
            aside, format=path.suffix[1:], dpi=150, metadata=metadata
        )
    aside.replace(path)


def _numbered(lines: Sequence[Line]) -> set[int]:
    """Which lines get λ beside their points."""
    if not lines:
        return set()
    height = _span([y for line in lines for y in _values(line, line.y)])
    width = _span([x for line in lines for x in _values(line, line.x)])
    best: dict[tuple[float, ...], tuple[float, int]] = {}
    for number, line in enumerate(lines):
        if line.x is None:
            continue
        xs, ys = _values(line, line.x), _values(line, line.y)
        steps = [
            hypot((xs[i + 1] - xs[i]) / width, (ys[i + 1] - ys[i]) / height)
            for i in range(len(xs) - 1)
        ]
        nearest = min(steps, default=0.0)
        if tuple(xs) not in best or nearest > best[tuple(xs)][0]:
            best[tuple(xs)] = nearest, number
    return {number for _, number in best.values()}


def _span(values: Sequence[float]) -> float:
    return (max(values) - min(values)) or 1.0


def _values(line: Line, name: str | None) -> list[float]:
    return [p.clip_weight if name is None else p.scores[name] for p in line.points]


def _spreads(line: Line, name: str | None) -> list[float] | None:
    if name is None or not any(p.spread.get(name) for p in line.points):
        return None
    return [p.spread.get(name, 0.0) for p in line.points]
