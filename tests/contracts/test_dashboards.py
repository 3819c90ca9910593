"""Boards show what the service measures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from tests.conftest import REPOSITORY
from tests.operations.boards.files import files

BOARDS = sorted((REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json"))


def exported_names() -> set[str]:
    """The names of all time series that `/metrics` can show."""
    return {name for each in Metrics().described() for name in each.series}


def expressions(board: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a board, annotations included."""
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found + [item["expr"] for item in board["annotations"]["list"] if "expr" in item]


def recorded_names() -> set[str]:
    """The names of all time series that Prometheus' rules make."""
    rules = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "rules.yml").read_text())
    return {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }


def test_the_boards_are_those_that_are_written_down() -> None:
    """`make dashboards` after a change; no board is left behind."""
    assert {path.name: path.read_text() for path in BOARDS} == dict(files())


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_queried_metric_is_exported(path: Path) -> None:
    """A panel never asks for a metric that the service does not have."""
    queried = expressions(json.loads(path.read_text()))
    names = {name for expr in queried for name in re.findall(r"\bvtag_\w+", expr)}
    assert names
    assert names - exported_names() == set()
    recorded = {name for expr in queried for name in re.findall(r"\bvtag:[\w:]+", expr)}
    assert recorded - recorded_names() == set()


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
