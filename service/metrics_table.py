"""What `/metrics` exports, for whoever reads about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True)
class Described:
    """One metric.

    Attributes:
        name: as it is exported; of a histogram, without `_bucket`, `_sum` and `_count`.
        kind: its type.
        labels: their names.
        text: what it is.
        buckets: upper bounds of a histogram, in the unit of the name.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query may use."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))


_HEADING: Final = """\
# Metrics

Everything that `/metrics` exports of the service's own, beside `process_*` and `python_*` of the
process that answers requests. Seconds, bytes and ratios; labels take few values, and never hold
label text, names of videos, keys or paths: `endpoint` is the template of a path, `unmatched` one
that is not ours. Values of a label that are known from the start are there from the start, at 0.

Written by `python -m service metrics`.

| name | type | labels | what it is | buckets |
| --- | --- | --- | --- | --- |"""


def metrics_table(found: Sequence[Described]) -> str:
    """Return a table in Markdown; ``deploy/METRICS.md`` is this text."""
    return "\n".join([_HEADING, *(_row(each) for each in found)])


def _row(each: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels)
    buckets = ", ".join(f"{bound:g}" for bound in each.buckets)
    return f"| `{each.name}` | {each.kind} | {labels} | {each.text} | {buckets} |"
