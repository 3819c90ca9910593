"""Boards show what the service measures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.metrics import Metrics
from tests.conftest import REPOSITORY

BOARDS = sorted((REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json"))
SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "info": ("_info",),
    "gauge": ("",),
}


def exported_names() -> set[str]:
    """The names of all time series that `/metrics` can show."""
    return {
        family.name + suffix
        for family in Metrics().registry.collect()
        for suffix in SUFFIXES.get(family.type, ("",))
    }


def expressions(board: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a board, annotations included."""
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found + [item["expr"] for item in board["annotations"]["list"] if "expr" in item]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_queried_metric_is_exported(path: Path) -> None:
    """A panel never asks for a metric that the service does not have."""
    queried = expressions(json.loads(path.read_text()))
    names = {name for expr in queried for name in re.findall(r"\bvtag_\w+", expr)}
    assert names
    assert names - exported_names() == set()


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_are_numbered_and_do_not_overlap(path: Path) -> None:
    """Identifiers are unique and every cell of the grid belongs to one panel."""
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
