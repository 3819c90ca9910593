"""From the filter of a request to the one of the index."""

from __future__ import annotations

from collections.abc import Iterator

from service.index.change import Scalar
from service.index.filter import NO_FILTER, Between, Condition, Exists, Filter, OneOf
from service.routes.search_shapes import MetadataCondition, SearchFilter


def index_filter(asked: SearchFilter | None) -> Filter:
    """Return what the index is to leave of its segments."""
    if asked is None:
        return NO_FILTER
    ids = asked.external_id
    return Filter(
        metadata=tuple(
            condition
            for key, value in (asked.metadata or {}).items()
            for condition in _conditions(key, value)
        ),
        external_ids=None if ids is None else (ids,) if isinstance(ids, str) else tuple(ids),
        created_from=asked.created.since if asked.created else None,
        created_before=asked.created.before if asked.created else None,
        from_seconds=asked.time.start if asked.time else None,
        until_seconds=asked.time.end if asked.time else None,
    )


def _conditions(key: str, asked: MetadataCondition | Scalar) -> Iterator[Condition]:
    if not isinstance(asked, MetadataCondition):
        yield OneOf(key, (asked,))
        return
    if "eq" in asked.model_fields_set:
        yield OneOf(key, (asked.eq,))
    if asked.one_of is not None:
        yield OneOf(key, tuple(asked.one_of))
    if asked.exists is not None:
        yield Exists(key, asked.exists)
    between = Between(key, at_least=asked.gte, above=asked.gt, at_most=asked.lte, below=asked.lt)
    if between != Between(key):
        yield between
