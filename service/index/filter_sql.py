"""Filters as SQL. Values travel as parameters, never as text."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from service.index.change import Scalar
from service.index.filter import Between, Bound, Condition, Exists, Filter, OneOf

_COMPARISONS = (("at_least", ">="), ("above", ">"), ("at_most", "<="), ("below", "<"))


class Parameters:
    """The values of a statement, numbered as they are put in."""

    def __init__(self, *values: object) -> None:
        self.values: list[object] = list(values)

    def put(self, value: object, kind: str) -> str:
        """Return what stands for a value in the statement; ``kind`` is its type in SQL."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def video_condition(wanted: Filter, parameters: Parameters) -> str | None:
    """Return the condition on ``videos v``; None if there is none."""
    found = [_metadata(condition, parameters) for condition in wanted.metadata]
    if wanted.external_ids is not None:
        found.append(f"v.external_id = ANY({parameters.put(list(wanted.external_ids), 'text[]')})")
    for moment, comparison in ((wanted.created_from, ">="), (wanted.created_before, "<")):
        if moment is not None:
            found.append(f"v.created_at {comparison} {parameters.put(moment, 'timestamptz')}")
    return " AND ".join(found) or None


def segment_condition(wanted: Filter, parameters: Parameters) -> str | None:
    """Return the condition on ``segments s``; None if there is none."""
    found = []
    if wanted.from_seconds is not None:
        moment = parameters.put(wanted.from_seconds, "double precision")
        found.append(f"s.end_seconds > {moment}")
    if wanted.until_seconds is not None:
        moment = parameters.put(wanted.until_seconds, "double precision")
        found.append(f"s.start_seconds < {moment}")
    if wanted.without:
        found.append(f"s.video_id <> ALL({parameters.put(list(wanted.without), 'text[]')})")
    return " AND ".join(found) or None


def _metadata(condition: Condition, parameters: Parameters) -> str:
    match condition:
        case OneOf():
            return _one_of(condition, parameters)
        case Between():
            return " AND ".join(_between(condition, parameters)) or "true"
        case Exists():
            key = parameters.put(condition.key, "text")
            return f"{'' if condition.there else 'NOT '}v.metadata ? {key}"


def _one_of(condition: OneOf, parameters: Parameters) -> str:
    # Containment is what the index on metadata answers; it compares numbers as numbers, and
    # true, "true" and 1 are different things to it.
    either = [
        f"v.metadata @> {parameters.put({condition.key: value}, 'jsonb')}"
        for value in condition.values
    ]
    return f"({' OR '.join(either) or 'false'})"


def _between(condition: Between, parameters: Parameters) -> Iterator[str]:
    for name, comparison in _COMPARISONS:
        bound: Bound | None = getattr(condition, name)
        if bound is None:
            continue
        key = parameters.put(condition.key, "text")
        kind, value = _typed(key, bound)
        limit = parameters.put(_plain(bound), "text" if isinstance(bound, str) else "numeric")
        # CASE, because only it promises that the value of another type is not converted.
        yield (
            f"CASE WHEN jsonb_typeof(v.metadata -> {key}) = '{kind}'"
            f" THEN {value} {comparison} {limit} ELSE false END"
        )


def _typed(key: str, bound: Bound) -> tuple[str, str]:
    if isinstance(bound, str):
        return "string", f'(v.metadata ->> {key}) COLLATE "C"'
    return "number", f"(v.metadata ->> {key})::numeric"


def _plain(bound: Bound) -> Scalar | Decimal:
    return bound if isinstance(bound, str) else Decimal(repr(bound))
