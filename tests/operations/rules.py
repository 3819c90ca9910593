"""The rules of deploy/prometheus as data, and in another time."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.conftest import REPOSITORY

RULES: Final = REPOSITORY / "deploy" / "prometheus" / "rules.yml"
TIMES: Final = 5
"""How often the Prometheus of tests scrapes while that of deploy/ scrapes once."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def rules() -> dict[str, Any]:
    """Return the file as it is parsed."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return found


def alerts() -> Mapping[str, dict[str, Any]]:
    """Return name -> rule of every alert."""
    each = (rule for group in rules()["groups"] for rule in group["rules"])
    return {rule["alert"]: rule for rule in each if "alert" in rule}


def seconds(duration: str) -> float:
    """Return what a duration of Prometheus, of one unit, is in seconds."""
    return float(duration[:-1]) * _SECONDS[duration[-1]]


def hurried_expression(expression: str) -> str:
    """Return it with ranges and offsets as many times shorter as `TIMES` says."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, round(seconds(found[2]) / TIMES))}s"

    return re.sub(r"(\[|offset )(\d+[smhd])", shorter, expression)


def hurried() -> str:
    """Return the file for a Prometheus that scrapes `TIMES` times as often, every second.

    Alerts wait for nothing: `for` is 0.
    """
    document = rules()
    for group in document["groups"]:
        for rule in group["rules"]:
            rule["expr"] = hurried_expression(rule["expr"])
            if "alert" in rule:
                rule["for"] = "0s"
    return yaml.safe_dump(document, allow_unicode=True)
