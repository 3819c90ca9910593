"""The fields that a form begins with, cut off by the C code of `bytes` and `re`.

The multipart parser is written in Python and makes some ten calls for each part: a thousand labels
took it longer than everything else that a thousand labels cost. Most clients send their fields
first, and head them alike. From the first part on that looks different, all is the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_HEADER: Final = rb'\r\n(?i:content-disposition): form-data; name="([\w.-]{1,64})"\r\n\r\n'
_MOST_BYTES: Final = 16 * 1024
"""Of a part that is still looked at; larger ones, and what is none, are the parser's."""


class PlainFields:
    """Takes whole fields from the beginning of a form, as it comes.

    Args:
        boundary: of the form.
        take: called with name and value of each field.
    """

    def __init__(self, boundary: bytes, *, take: Callable[[str, bytes], None]) -> None:
        self._start = b"--" + boundary
        self._end = b"\r\n" + self._start
        self._header = re.compile(re.escape(self._start) + _HEADER)
        self._take = take
        self._held = b""
        self._is_over = False

    def feed(self, data: bytes) -> bytes:
        """Take what is plain; return what is the parser's, which begins with a boundary line."""
        if self._is_over:
            return data
        data = self._held + data
        at = 0
        while (found := self._header.match(data, at)) is not None:
            end = data.find(self._end, found.end())
            after = end + len(self._end)
            if end < 0 or data[after : after + 2] != b"\r\n":
                break  # the last part, one that is not whole yet, or something else
            self._take(found[1].decode(), data[found.end() : end])
            at = end + 2
        self._held = data[at:]
        # What is not whole yet is shorter than that; so is the last part, which `rest` returns.
        if len(self._held) <= _MOST_BYTES and (found is not None or self._is_cut(self._held)):
            return b""
        self._is_over = True
        return self.rest()

    def rest(self) -> bytes:
        """Return what was held back, at the end of the form."""
        held, self._held = self._held, b""
        return held

    def _is_cut(self, data: bytes) -> bool:
        """Whether this may be the beginning of a header that goes on in the next chunk."""
        return len(data) < len(self._start) + 128 and b"\r\n\r\n" not in data
