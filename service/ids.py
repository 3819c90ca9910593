"""Identifiers: a prefix that says what is named, then a ULID (sortable by time of creation)."""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: no I, L, O, U
_PATTERN = re.compile(rf"[a-z]{{3}}_[0-7][{_ALPHABET}]{{25}}")


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 characters: 48 bits of milliseconds since 1970, 80 random bits.

    Source: the ULID specification, github.com/ulid/spec.
    """
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))


def is_id(text: str, *, prefix: str) -> bool:
    """Tell whether ``text`` has the form of an identifier with this prefix."""
    return text.startswith(f"{prefix}_") and _PATTERN.fullmatch(text) is not None
