"""Grafana's JSON in few words: panels of some kinds, laid out from left to right, and boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Json = dict[str, Any]
Shape = Literal["stat", "lines", "stack", "states", "heatmap", "alerts"]

_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS: Final = 24
_TYPES: Final = {
    "stat": "stat",
    "lines": "timeseries",
    "stack": "timeseries",
    "states": "state-timeline",
    "heatmap": "heatmap",
    "alerts": "table",
}


@dataclass(frozen=True)
class Panel:
    """One question and its answer.

    Attributes:
        title: the question's subject.
        about: what it shows and how to read it.
        queries: legend -> PromQL; a legend may name labels in braces.
        unit: of Grafana, e.g. `s`, `bytes`, `percentunit`, `reqps`.
        shape: how it is drawn.
        width: of 24 columns; None: 4 for a tile, else 12.
        steps: value -> colour from it on; the first is for everything below the second.
        maximum: upper end of the axis.
    """

    title: str
    about: str
    queries: Mapping[str, str]
    unit: str = "short"
    shape: Shape = "lines"
    width: int | None = None
    steps: Mapping[float, str] = field(default_factory=dict)
    maximum: float | None = None

    @property
    def columns(self) -> int:
        """Its width."""
        return self.width or (4 if self.shape == "stat" else 12)

    @property
    def rows(self) -> int:
        """Its height."""
        return 4 if self.shape == "stat" else 8

    def json(self, number: int, *, x: int, y: int) -> Json:
        """Return it as Grafana reads it."""
        defaults: Json = {"unit": self.unit, "min": 0}
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.steps:
            # Grafana's first step has no value: it reaches down without end.
            steps = [{"color": colour, "value": value} for value, colour in self.steps.items()]
            steps[0]["value"] = None
            defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        options: Json = {}
        if self.shape == "stat":
            options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
        elif self.shape in ("lines", "stack"):
            filled = self.shape == "stack"
            defaults["custom"] = {
                "fillOpacity": 60 if filled else 10,
                "stacking": {"mode": "normal" if filled else "none"},
                "showPoints": "never",
            }
            options = {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        elif self.shape == "states":
            defaults["color"] = {"mode": "thresholds"}
            options = {"mergeValues": True, "showValue": "never"}
        elif self.shape == "heatmap":
            options = {"calculate": False, "yAxis": {"unit": self.unit}}
        return {
            "id": number,
            "type": _TYPES[self.shape],
            "title": self.title,
            "description": self.about,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.columns, "h": self.rows},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [
                self._target(chr(ord("A") + place), legend, expression)
                for place, (legend, expression) in enumerate(self.queries.items())
            ],
            "options": options,
        }

    def _target(self, letter: str, legend: str, expression: str) -> Json:
        shape = {"heatmap": "heatmap", "alerts": "table"}.get(self.shape, "time_series")
        return {
            "refId": letter,
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend.replace("{", "{{").replace("}", "}}"),
            "format": shape,
            "instant": self.shape == "alerts",
        }


@dataclass(frozen=True)
class Board:
    """Panels that answer one kind of question, in rows.

    Attributes:
        name: of its file.
        title: of the board.
        rows: title of a row -> its panels.
    """

    name: str
    title: str
    rows: Mapping[str, Sequence[Panel]]

    def json(self) -> Json:
        """Return it as Grafana reads it."""
        return {
            "uid": f"vtag-{self.name}",
            "title": self.title,
            "tags": ["vtag"],
            "schemaVersion": 41,
            "version": 1,
            "editable": False,
            "refresh": "5s",
            "time": {"from": "now-30m", "to": "now"},
            "timezone": "browser",
            "links": [
                {
                    "type": "dashboards",
                    "tags": ["vtag"],
                    "title": "vtag",
                    "asDropdown": True,
                    "keepTime": True,
                    "includeVars": True,
                }
            ],
            "templating": {"list": [_instances()]},
            "annotations": {"list": _marks()},
            "panels": self._panels(),
        }

    def _panels(self) -> list[Json]:
        found: list[Json] = []
        y = 0
        for title, panels in self.rows.items():
            found.append(
                {
                    "id": len(found) + 1,
                    "type": "row",
                    "title": title,
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
                    "panels": [],
                }
            )
            x, y, height = 0, y + 1, 0
            for panel in panels:
                if x + panel.columns > _COLUMNS:
                    x, y, height = 0, y + height, 0
                found.append(panel.json(len(found) + 1, x=x, y=y))
                x, height = x + panel.columns, max(height, panel.rows)
            y += height
        return found


def _instances() -> Json:
    query = "label_values(vtag_ready, instance)"
    return {
        "name": "instance",
        "label": "instance",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _marks() -> list[Json]:
    marks = {
        "λ changed": ('changes(vtag_lambda{instance=~"$instance"}[$__interval]) > 0', "blue"),
        "artefact activated": (
            'increase(vtag_activations_total{instance=~"$instance",outcome="activated"}'
            "[$__interval]) > 0",
            "purple",
        ),
    }
    return [
        {
            "name": name,
            "datasource": _SOURCE,
            "enable": True,
            "expr": expression,
            "step": "5s",
            "iconColor": colour,
            "titleFormat": name,
            "textFormat": "{{instance}}",
        }
        for name, (expression, colour) in marks.items()
    ]
