"""Filters as expressions of Milvus.

They leave at least what the filter leaves: conditions that Milvus would judge otherwise than
Postgres are not in them, and whoever asks looks at the records of what comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from service.index.change import Scalar
from service.index.filter import Between, Condition, Filter, OneOf

_COMPARISONS: Final = (("at_least", ">="), ("above", ">"), ("at_most", "<="), ("below", "<"))
_EXACT: Final = 2**53  # from here on a number may be another one as a double
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def segments(collection_id: int, wanted: Filter) -> str:
    """Return the condition on what is known of segments alone; it is exact."""
    found = [f"collection_id == {collection_id:d}"]
    if wanted.from_seconds is not None:
        found.append(f"end_seconds > {wanted.from_seconds!r}")
    if wanted.until_seconds is not None:
        found.append(f"start_seconds < {wanted.until_seconds!r}")
    if wanted.without:
        found.append(f"video_id not in {_list(wanted.without)}")
    return " and ".join(found)


def videos(wanted: Filter) -> str | None:
    """Return the condition on facts of the video, as Milvus has them; None: it knows none."""
    found = [each for condition in wanted.metadata for each in _metadata(condition)]
    if wanted.external_ids is not None:
        found.append(f"external_id in {_list(wanted.external_ids)}")
    for moment, comparison in ((wanted.created_from, ">="), (wanted.created_before, "<")):
        if moment is not None:
            found.append(f"created_at {comparison} {microseconds(moment):d}")
    return " and ".join(found) or None


def among(video_ids: Iterable[str]) -> str:
    """Return the condition that a segment is of one of these videos."""
    return f"video_id in {_list(video_ids)}"


def microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 to a moment."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _metadata(condition: Condition) -> Iterator[str]:
    # Whether a key is there, with null too, Milvus says otherwise than Postgres.
    if isinstance(condition, OneOf):
        either = [_equal(condition.key, value) for value in condition.values]
        known = [each for each in either if each is not None]
        if known and len(known) == len(either):
            yield f"({' or '.join(known)})"
    elif isinstance(condition, Between):
        for name, comparison in _COMPARISONS:
            bound = getattr(condition, name)
            if isinstance(bound, int | float) and abs(bound) < _EXACT:
                yield f"{_key(condition.key)} {comparison} {bound!r}"


def _equal(key: str, value: Scalar) -> str | None:
    if value is None or (not isinstance(value, bool | str) and abs(value) >= _EXACT):
        return None
    return f"{_key(key)} == {_literal(value)}"


def _key(key: str) -> str:
    return f"metadata[{_literal(key)}]"


def _literal(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _list(values: Iterable[str]) -> str:
    found: Sequence[str] = [_literal(value) for value in values]
    return f"[{', '.join(found)}]"
