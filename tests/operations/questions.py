"""Every query of the boards and the rules, as Prometheus is asked them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.operations.boards.files import BOARDS
from tests.operations.boards.panel import Panel
from tests.operations.prometheus import SCRAPE_SECONDS
from tests.operations.rules import alerts, hurried_expression


@dataclass(frozen=True)
class Question:
    """One query and where it stands.

    Attributes:
        place: board, panel and legend; or the name of an alert.
        expression: PromQL, with values for Grafana's variables.
    """

    place: str
    expression: str


def asked(expression: str) -> str:
    """Return a query of a panel with values for the variables: of all instances."""
    # As Grafana sets it: four scrapes. Ranges that are written out are hurried as the rules are.
    variables = {
        "$__rate_interval": f"{4 * SCRAPE_SECONDS:g}s",
        "$__interval": f"{4 * SCRAPE_SECONDS:g}s",
        "$instance": ".*",
    }
    found = hurried_expression(expression)
    for name, value in variables.items():
        found = found.replace(name, value)
    return found


def panel_called(place: str) -> Panel:
    """Return the panel that an alert names: board / panel."""
    title, name = place.split(" / ", 1)
    [board] = [each for each in BOARDS if each.title == f"vtag {title[0].lower()}{title[1:]}"]
    [panel] = [each for row in board.rows.values() for each in row if each.title == name]
    return panel


def questions() -> Iterator[Question]:
    """Yield those of all panels, then those of all alerts."""
    for board in BOARDS:
        for annotation in board.json()["annotations"]["list"]:
            expression = with_answers(asked(annotation["expr"]))
            yield Question(f"{board.name} / {annotation['name']}", expression)
        for row in board.rows.values():
            for panel in row:
                for legend, expression in panel.queries.items():
                    yield Question(f"{board.name} / {panel.title} / {legend}", asked(expression))
    for name, rule in alerts().items():
        yield Question(name, with_answers(hurried_expression(rule["expr"])))


def with_answers(expression: str) -> str:
    """Return an expression that gives 0 or 1 where an alert's gives something or nothing.

    An alert that does not fire has no samples, whether its metrics are there or not; with
    comparisons that answer, it has none only if they are not.
    """
    parts = re.split(r"(\{[^}]*\})", expression)  # matchers are no comparisons
    compared = re.compile(r"(==|!=|<=|>=|<|>)(?!\s*bool)")
    return "".join(
        part if part.startswith("{") else compared.sub(r"\1 bool", part) for part in parts
    )
