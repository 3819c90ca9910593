"""A measured λ curve, the rule and its choice, as JSON, Markdown and a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from service.videoclip.manifest import LambdaPoint
from training.curve_picture import Line, draw_lines
from training.errors import Refusal
from training.measure_runs import MeasuredCurve
from training.model_card import figure, without_spread_of_one
from training.selection_rule import Choice, SelectionError, SelectionRule, choose
from training.whole_file import write_whole

CURVE_FILE = "curve.json"
TABLE_FILE = "curve.md"
PICTURE_FILE = "curve.svg"
SCHEMA_VERSION = 1
#: Under a curve that was measured without a table `select`.
NO_RULE = "No rule was given: no λ is chosen."
_POINTS = TypeAdapter(tuple[LambdaPoint, ...])


class CurveError(Refusal):
    """A file that holds no curve; says where one comes from."""


def describe_curve(measured: MeasuredCurve, *, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The curve and everything that another one must share to be compared with it, as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "points": _POINTS.dump_python(without_spread_of_one(measured.points), mode="json"),
        "sets": {
            name: {
                "protocol": plan.protocol.title,
                "list_sha256": plan.sha256,
                "label_spelling": plan.spelling,
                "notes": list(plan.notes),
            }
            for name, plan in measured.plans.items()
        },
        "models": [dict(facts) for facts in measured.models],
        **measured.way.facts(),
        "view_rule": measured.rule,
        "failed": [{"video": path.name, "reason": reason} for path, reason in measured.failed],
        "environment": dict(environment),
    }


def write_unchosen(folder: Path, document: Mapping[str, Any]) -> None:
    """Write all three files of a described curve on which no rule chooses."""
    points = _POINTS.validate_python(document["points"])
    _write_all(folder, document, points, rule=None, choice=None)


def choose_and_write(folder: Path, document: Mapping[str, Any], rule: SelectionRule) -> Choice:
    """Apply the rule to a described curve, and write all three files into a folder that is there.

    Raises SelectionError when no λ satisfies the rule; the curve is written all the same.
    """
    points = _POINTS.validate_python(document["points"])
    try:
        choice = choose(points, rule)
    except SelectionError:
        _write_all(folder, document, points, rule=rule, choice=None)
        raise
    _write_all(folder, document, points, rule=rule, choice=choice)
    return choice


def read_curve(folder: Path) -> dict[str, Any]:
    """The description of a curve in a run's folder. Raises CurveError when there is none."""
    path = folder / CURVE_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _POINTS.validate_python(document["points"])
    except FileNotFoundError as error:
        raise CurveError(f"{path}: missing; `python -m training select` measures it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CurveError(f"{path}: no curve of `python -m training select`") from error
    return document


def read_points(folder: Path) -> tuple[LambdaPoint, ...]:
    """The points of the curve in a run's folder. Raises CurveError when there is none."""
    return _POINTS.validate_python(read_curve(folder)["points"])


def curve_markdown(
    points: Sequence[LambdaPoint],
    *,
    choice: Choice | None,
    runs: int = 1,
    none_chosen: str = "No λ satisfies the rule.",
) -> str:
    """The curve as a table: a line for each λ, the chosen one marked, and why it was chosen.

    none_chosen: stands there without a choice.
    """
    names = list(points[0].scores)
    rows = [["λ", *names, ""], ["---"] * (len(names) + 2)]
    for point in points:
        chosen = choice is not None and point.clip_weight == choice.clip_weight
        cells = (figure(point, name) for name in names)
        rows.append([f"{point.clip_weight:g}", *cells, "★" if chosen else ""])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    kind = f"mean ± standard deviation over {runs} seeds" if runs > 1 else "one seed"
    reason = none_chosen if choice is None else f"★ {choice.reason}."
    return f"λ is the share of the original CLIP; %, {kind}.\n\n{table}\n\n{reason}\n"


def draw_curve(
    points: Sequence[LambdaPoint], path: Path, *, rule: SelectionRule | None, chosen: float | None
) -> None:
    """One line for each target against the closed set, λ beside the points, the choice starred.

    Without a rule, or a closed set in it, all sets are drawn over λ.
    """
    closed = None if rule is None else rule.closed_set
    targets = [name for name in points[0].scores if name != closed]
    lines = [
        Line(name=name, points=tuple(points), y=name, x=closed, chosen=chosen) for name in targets
    ]
    draw_lines(
        lines,
        path,
        x_label="λ, the share of CLIP" if closed is None else f"{closed} (closed set), %",
        y_label="top-1 (of retrieval R@1), %" if closed is None else "zero-shot, %",
    )


def _write_all(
    folder: Path,
    document: Mapping[str, Any],
    points: tuple[LambdaPoint, ...],
    *,
    rule: SelectionRule | None,
    choice: Choice | None,
) -> None:
    chosen = None if choice is None else asdict(choice)
    applied = None if rule is None else {**asdict(rule), "words": rule.words()}
    described = {**document, "rule": applied, "choice": chosen}
    text = json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(folder / CURVE_FILE, text + "\n")
    runs = len(document["models"])
    if rule is None:
        table = curve_markdown(points, choice=None, runs=runs, none_chosen=NO_RULE)
    else:
        table = curve_markdown(points, choice=choice, runs=runs)
    picture = f"![the curve]({PICTURE_FILE})"
    write_whole(folder / TABLE_FILE, f"# λ curve\n\n{table}\n{picture}\n")
    weight = None if choice is None else choice.clip_weight
    draw_curve(points, folder / PICTURE_FILE, rule=rule, chosen=weight)
