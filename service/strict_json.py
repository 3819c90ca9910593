"""JSON as RFC 8259 has it: what two readers could understand in two ways is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from service.errors import ApiError


def strict_json(text: bytes | bytearray | str) -> Any:
    """Parse UTF-8 JSON with no double keys, no number that is not finite, and only text in strings.

    NUL and lone surrogates are refused: neither Postgres nor UTF-8 can hold them.

    Raises:
        ApiError: ``malformed_json`` without the words of the parser.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_float=_number, parse_constant=_number
        )
        if "\\u" in text:
            _require_text(text, value)
        return value
    except RecursionError:
        raise ApiError("malformed_json", "The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise ApiError("malformed_json", "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ApiError(
            "malformed_json", f"Not valid JSON at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:  # integers of more digits than Python converts
        raise ApiError("malformed_json", "A number is too long.") from None


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise ApiError("malformed_json", "An object names a key twice.")
    return found


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ApiError("malformed_json", "A number is not finite.")
    return value


def _require_text(text: str, value: Any) -> None:
    """Refuse what only escapes can bring into strings."""
    shown = json.dumps(value, ensure_ascii=False)
    # Unescaped NUL is no JSON, so that the writer's escape of it is one of a NUL ...
    if "\\u0000" in text and "\\u0000" in shown.replace("\\\\", ""):
        raise ApiError("malformed_json", "A string holds a NUL character.")
    try:
        shown.encode()
    except UnicodeEncodeError:  # ... and half of a pair cannot be written at all
        raise ApiError("malformed_json", "A string holds half of a surrogate pair.") from None
