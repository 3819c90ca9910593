"""The ``Range`` header: which part of a file a client wants (RFC 9110, section 14)."""

from __future__ import annotations

import re
from typing import Final

from service.errors import ApiError

_ONE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


def byte_range(header: str | None, *, size: int) -> tuple[int, int] | None:
    """Return start and length of the part; None: the whole is to be sent.

    What is not understood, and what asks for several parts, is ignored, as the RFC allows.

    Raises:
        ApiError: ``range_not_satisfiable``.
    """
    match = None if header is None else _ONE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = size if match[2] == "" else min(size, int(match[2]) + 1)
        if match[2] and int(match[2]) < start:
            return None  # invalid, so it does not count
    if start >= size or start >= end:
        raise ApiError(
            "range_not_satisfiable",
            f"The video has {size} bytes.",
            param="Range",
            limit=size,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end - start
