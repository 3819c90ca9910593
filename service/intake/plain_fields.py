"""The fields that a form begins with, cut off by the C code of `bytes`.

The multipart parser is written in Python and makes some ten calls for each part: a thousand labels
took it longer than everything else that a thousand labels cost. Most clients send their fields
first, and head those of a list alike: such a run is split in one call. From the first part on that
looks different, all is the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_HEADER: Final = re.compile(rb'(?i:content-disposition): form-data; name="([\w.-]{1,64})"')
_LINE: Final = b"\r\n"
_BLANK: Final = b"\r\n\r\n"
_MOST_HEADER_BYTES: Final = 128
_MOST_BYTES: Final = 16 * 1024
"""Of a part that is still looked at; larger ones, and what is none, are the parser's."""
_SHORT_RUN: Final = 8
"""Looking for a run goes through all that has come: not once for every few fields."""


class PlainFields:
    """Takes whole fields from the beginning of a form, as it comes.

    Args:
        boundary: of the form.
        take: called with a name and the values of one or more fields of that name, in their order.
    """

    def __init__(self, boundary: bytes, *, take: Callable[[str, Sequence[bytes]], None]) -> None:
        self._start = b"--" + boundary + _LINE
        self._end = b"\r\n--" + boundary
        self._take = take
        self._held = b""
        self._has_runs = True
        self._is_over = False

    def feed(self, data: bytes) -> bytes:
        """Take what is plain; return what is the parser's, which begins with a boundary line."""
        if self._is_over:
            return data
        data = self._held + data
        at = 0
        while (head := self._head(data, at)) is not None:
            name, begin = head
            end = data.find(self._end, begin)
            after = end + len(self._end)
            if end < 0 or data[after : after + len(_LINE)] != _LINE:
                break  # the last part, one that is not whole yet, or something else
            values = [data[begin:end]]
            between = _LINE + data[at:begin]
            if self._has_runs and data.startswith(between, end):
                values = self._run(data[begin:], between=between) or values
                self._has_runs = len(values) >= _SHORT_RUN
                end = begin + sum(map(len, values)) + (len(values) - 1) * len(between)
            self._take(name, values)
            at = end + len(_LINE)
        self._held = data[at:]
        # What is not whole yet is shorter than that; so is the last part, which `rest` returns.
        if len(self._held) <= _MOST_BYTES and (head is not None or self._is_cut(self._held)):
            return b""
        self._is_over = True
        return self.rest()

    def rest(self) -> bytes:
        """Return what was held back, at the end of the form."""
        held, self._held = self._held, b""
        return held

    def _head(self, data: bytes, at: int) -> tuple[str, int] | None:
        """Return the name of the plain field that begins at `at`, and where its value does."""
        if not data.startswith(self._start, at):
            return None
        at += len(self._start)
        end = data.find(_BLANK, at, at + _MOST_HEADER_BYTES)
        match = None if end < 0 else _HEADER.fullmatch(data, at, end)
        return None if match is None else (match[1].decode(), end + len(_BLANK))

    def _run(self, data: bytes, *, between: bytes) -> list[bytes]:
        """Return the values that `data` begins with, all that `between` ends; none: they differ."""
        *values, rest = data.split(between)
        inside = data.count(self._end, 0, len(data) - len(rest))
        return values if inside == len(values) else []

    def _is_cut(self, data: bytes) -> bool:
        """Whether this may be the beginning of a header that goes on in the next chunk."""
        return len(data) < len(self._start) + _MOST_HEADER_BYTES and _BLANK not in data
