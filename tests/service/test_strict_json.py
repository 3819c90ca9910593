"""JSON: strict, and only text in strings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ApiError
from service.strict_json import strict_json

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}', b"NaN", b"[Infinity]", b"[-Infinity]", b"[1e400]",
     b"{", b"", b'"\xff"', b"[" * 100_000, b"[" + b"9" * 5000 + b"]", b"{'a':1}", b"[1,]",
     b'"\xed\xa0\x80"', '"x"'.encode("utf-16"), b"\xef\xbb\xbf{}", b'"\x00"', b'"\\u0000"',
     b'{"a\\u0000":1}', b'["\\\\\\u0000"]', b'"\\ud800"', b'"\\udc00\\ud800"', b'{"\\uDFFF":1}'],
)  # fmt: skip
def test_json_that_others_would_read_in_their_own_way_is_refused(text: bytes) -> None:
    """Double keys, numbers that are none, depth, encodings, NUL, half a pair: 400, in our words."""
    with pytest.raises(ApiError) as caught:
        strict_json(text)
    assert (caught.value.code, caught.value.status) == ("malformed_json", 400)


@given(_JSON, st.booleans())
def test_json_survives(value: object, as_escapes: bool) -> None:
    """What json writes is read back as it was, with escapes or without."""
    assert strict_json(json.dumps(value, ensure_ascii=as_escapes).encode()) == value


def test_an_escaped_backslash_before_u0000_is_text() -> None:
    """Six characters that look like a NUL are none; a whole pair of surrogates is one character."""
    assert strict_json(rb'"\\u0000"') == "\\u0000"
    assert strict_json(rb'"\ud83d\ude00"') == "\U0001f600"
