"""Which videos and segments a search may find: conditions that all have to hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.index.change import Scalar

Bound = int | float | str


@dataclass(frozen=True)
class OneOf:
    """The value of a key is one of these; numbers equal numbers, whatever way they are written."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Between:
    """The value of a key lies between bounds: numbers with numbers, texts by code points.

    Attributes:
        at_least: and the next three; None: no such bound. All that are given are of one type.
    """

    key: str
    at_least: Bound | None = None
    above: Bound | None = None
    at_most: Bound | None = None
    below: Bound | None = None


@dataclass(frozen=True)
class Exists:
    """Whether the key is there, with whatever value, null too."""

    key: str
    there: bool = True


Condition = OneOf | Between | Exists


@dataclass(frozen=True)
class Filter:
    """Everything that is given has to hold.

    Attributes:
        metadata: of the video.
        external_ids: of the video; one of them.
        created_from: UTC; the video was indexed then or later.
        created_before: UTC; it was indexed earlier.
        from_seconds: the segment ends after this time of its video.
        until_seconds: the segment begins before this time; with both: it overlaps the two.
        without: videos that are left out, by id.
    """

    metadata: tuple[Condition, ...] = ()
    external_ids: tuple[str, ...] | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    from_seconds: float | None = None
    until_seconds: float | None = None
    without: tuple[str, ...] = ()


NO_FILTER: Final = Filter()
