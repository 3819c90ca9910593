"""Where a search goes on: the vector, the place behind the last hit, and what it belongs to.

A cursor carries the vector itself. The same text or video, encoded again among other requests, can
come out different in the last bit, and a page that begins at a cosine would then lose or repeat
hits; and nothing has to be sent or encoded twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import orjson

from service.errors import ApiError
from service.ids import is_id
from service.index.video_index import Hit, Vector
from service.index.wish import After
from service.routes.search_shapes import SearchRequest

_FORMAT = 1
_MAX_SEEN = 10_000_000
_MAX_ORDINAL = 2**31 - 1


@dataclass(frozen=True)
class SearchCursor:
    """A place in the answer to one request.

    Attributes:
        request: `fingerprint` of the request.
        space: id of the space that is searched.
        after: the last hit.
        vector: float32 (D,), unit length.
    """

    request: str
    space: str
    after: After
    vector: Vector

    def text(self) -> str:
        """The cursor as clients hold it: URL-safe, without padding."""
        head = orjson.dumps(
            [
                _FORMAT,
                self.request,
                self.space,
                self.after.cosine,
                self.after.video_id,
                self.after.ordinal,
                self.after.seen,
            ]
        )
        whole = head + b"\n" + self.vector.astype("<f4").tobytes()
        return base64.urlsafe_b64encode(whole).rstrip(b"=").decode()


def fingerprint(options: SearchRequest) -> str:
    """What two requests have in common that are pages of one answer."""
    same = options.model_dump_json(exclude={"cursor", "top_k"}, by_alias=True)
    return hashlib.sha256(same.encode()).hexdigest()[:32]


def cursor_behind(
    hit: Hit, *, options: SearchRequest, space: str, vector: Vector, seen: int
) -> SearchCursor:
    """Return the cursor behind a hit, the last of ``seen`` so far."""
    best = hit.segments[0]
    ordinal = best.ordinal if options.group_by == "segment" else None
    after = After(best.cosine, hit.video_id, ordinal, seen)
    return SearchCursor(fingerprint(options), space, after, vector)


def read_cursor(options: SearchRequest) -> SearchCursor | None:
    """Return the cursor of a request; None: it asks for the first page.

    Raises:
        ApiError: ``invalid_cursor``: not one of ours, or of another request.
    """
    if options.cursor is None:
        return None
    try:
        cursor = _parsed(options.cursor)
    except (binascii.Error, ValueError, TypeError):  # orjson's error is a ValueError
        raise ApiError("invalid_cursor", "The cursor is not one of ours.", param="cursor") from None
    by_segment = options.group_by == "segment"
    if cursor.request != fingerprint(options) or (cursor.after.ordinal is not None) != by_segment:
        raise ApiError(
            "invalid_cursor",
            "The cursor belongs to another request; send the same one, or begin without it.",
            param="cursor",
        )
    return cursor


def _parsed(text: str) -> SearchCursor:
    padded = text + "=" * (-len(text) % 4)
    whole = base64.b64decode(padded, altchars=b"-_", validate=True)
    head, _, data = whole.partition(b"\n")
    number, request, space, cosine, video_id, ordinal, seen = orjson.loads(head)
    vector = np.frombuffer(data, "<f4").astype(np.float32)
    length = float(np.linalg.norm(vector))
    is_ours = (
        number == _FORMAT
        and isinstance(request, str)
        and isinstance(space, str)
        and isinstance(cosine, float)
        and -1.0 <= cosine <= 1.0
        and isinstance(video_id, str)
        and is_id(video_id, prefix="vid")
        and (ordinal is None or (type(ordinal) is int and 0 <= ordinal <= _MAX_ORDINAL))
        and type(seen) is int
        and 0 < seen <= _MAX_SEEN
        and math.isfinite(length)
        and abs(length - 1.0) < 1e-3
    )
    if not is_ours:
        raise ValueError("foreign")
    return SearchCursor(request, space, After(cosine, video_id, ordinal, seen), vector)
