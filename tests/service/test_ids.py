"""Identifiers sort by time and are recognised."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.ids import is_id, new_id


def test_identifiers_are_distinct_and_sort_by_millisecond() -> None:
    """A thousand are all different, and the part that holds the time never goes back."""
    found = [new_id("vid") for _ in range(1000)]
    assert len(set(found)) == 1000
    assert all(a[:14] <= b[:14] for a, b in pairwise(found))
    assert all(is_id(one, prefix="vid") and not is_id(one, prefix="cls") for one in found)


@given(st.text(max_size=40))
def test_other_texts_are_not_identifiers(text: str) -> None:
    """What a client sends in place of an identifier is recognised as something else."""
    assert not is_id(f"vid_{text}!", prefix="vid")
    assert not is_id(text + "é", prefix="vid")
