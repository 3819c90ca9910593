"""What an evaluation found: a table to read, and a document that says how it was measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluate.base_to_novel import harmonic_mean
from training.evaluate.class_lists import list_hash
from training.evaluate.measure import Measured, figures, means
from training.evaluate.model import Way
from training.evaluate.plan import ClassPart, Plan
from training.evaluate.views import PairRule, ViewRule
from training.whole_file import write_whole

SCHEMA_VERSION = 1
_MEAN, _HARMONIC = "mean", "harmonic mean"


def document(
    plan: Plan,
    measured: Mapping[float, Measured],
    *,
    way: Way,
    rule: ViewRule,
    pair_rule: PairRule = "product",
    model: Mapping[str, Any],
    failed: Sequence[tuple[Path, str]],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that two results must share to be compared, and the figures. For JSON.

    measured: λ -> scores. model: its facts. failed: videos that were left out.
    """
    protocol = plan.protocol
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": {
            "name": protocol.name,
            "dataset": protocol.dataset,
            "version": protocol.version,
            "definition": protocol.definition,
        },
        "list_sha256": plan.sha256,
        "label_spelling": plan.spelling,
        "model": dict(model),
        **way.facts(),
        "view_rule": rule,
        "pair_rule": pair_rule,
        "environment": dict(environment),
        "parts": [
            {
                "name": part.name,
                "classes": len(part.classes),
                "classes_sha256": list_hash(part.classes),
            }
            if isinstance(part, ClassPart)
            else {"name": part.name, "texts": len(part.texts)}
            for part in plan.parts
        ],
        "notes": list(plan.notes),
        "failed": [{"video": path.name, "reason": reason} for path, reason in failed],
        "results": [
            {"clip_weight": weight, **_result(found)} for weight, found in sorted(measured.items())
        ],
    }


def table(document: Mapping[str, Any]) -> str:
    """The results as a Markdown table: a line for each part at each λ, then mean ± spread."""
    names = list(document["results"][0]["parts"][0]["figures"])
    lines = [["λ", "part", "videos", *names], ["---"] * (3 + len(names))]
    for result in document["results"]:
        weight = f"{result['clip_weight']:g}"
        for part in result["parts"]:
            cells = [f"{part['figures'][name]:.1f}" for name in names]
            lines.append([weight, part["name"], str(part["videos"]), *cells])
        if len(result["parts"]) > 1:
            cells = [_cell(result[_MEAN][name], result["spread"].get(name)) for name in names]
            lines.append([weight, _MEAN, "", *cells])
        if _HARMONIC in result:
            cells = [f"{result[_HARMONIC][name]:.1f}" for name in names]
            lines.append([weight, _HARMONIC, "", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the document as JSON, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")


def _result(measured: Measured) -> dict[str, Any]:
    scores = measured.scores
    averages = means(list(scores.values()))
    result: dict[str, Any] = {
        "headline": measured.headline,
        "parts": [
            {"name": name, "videos": score.videos, "figures": figures(score)}
            for name, score in scores.items()
        ],
        _MEAN: {name: mean for name, (mean, _) in averages.items()},
        "spread": {name: spread for name, (_, spread) in averages.items() if spread is not None},
    }
    if measured.base_to_novel:
        base, novel = figures(scores["base"]), figures(scores["novel"])
        result[_HARMONIC] = {name: harmonic_mean(base[name], novel[name]) for name in base}
    return result


def _cell(mean: float, spread: float | None) -> str:
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"
