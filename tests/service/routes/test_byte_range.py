"""The Range header as RFC 9110 has it: one range, or everything."""

import pytest

from service.errors import ApiError
from service.routes.byte_range import byte_range


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=10-10", (10, 1)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-30", (70, 30)),
        ("bytes=-1000", (0, 100)),
        ("Bytes= 5-6 ", (5, 2)),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("items=0-5", None),
        ("bytes=٣-٤", None),
        ("bytes=" + 40 * "9" + "-", None),
    ],
)
def test_a_range_is_a_start_and_a_length(header: str | None, part: tuple[int, int] | None) -> None:
    """What is invalid, or more than one range, is as if it were not there."""
    assert byte_range(header, size=100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_is_refused_with_the_size(header: str) -> None:
    """416, and Content-Range tells how much there is."""
    with pytest.raises(ApiError) as refused:
        byte_range(header, size=100)
    assert (refused.value.status, refused.value.code) == (416, "range_not_satisfiable")
    assert refused.value.headers["Content-Range"] == "bytes */100"
