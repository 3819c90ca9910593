"""Filters as expressions of Milvus: what it would judge otherwise than Postgres is left out."""

from datetime import UTC, datetime

import pytest

from service.index import milvus_filter
from service.index.filter import Between, Condition, Exists, Filter, OneOf


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (OneOf("k", ("a",)), '(metadata["k"] == "a")'),
        (OneOf("k", ('"] or "é',)), '(metadata["k"] == "\\"] or \\"é")'),
        (OneOf("k", (1, 2.5, True)), '(metadata["k"] == 1 or metadata["k"] == 2.5'
         ' or metadata["k"] == true)'),
        (OneOf("k", (1, None)), None),
        (OneOf("k", (2**53,)), None),
        (OneOf("k", ()), None),
        (Between("k", at_least=1, below=2.5), 'metadata["k"] >= 1 and metadata["k"] < 2.5'),
        (Between("k", above="a"), None),
        (Between("k", at_most=2**60), None),
        (Exists("k"), None),
        (Exists("k", there=False), None),
    ],
)  # fmt: skip
def test_conditions_on_metadata(condition: Condition, expected: str | None) -> None:
    """Equality and bounds of numbers are said, null, presence and large numbers are not."""
    assert milvus_filter.videos(Filter((condition,))) == expected


def test_all_that_is_said_has_to_hold() -> None:
    """Facts of the video are one expression, those of segments another."""
    moment = datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)
    wanted = Filter(
        (OneOf("n", (1,)), Exists("n")),
        external_ids=("a", "b"),
        created_from=moment,
        created_before=moment,
        from_seconds=1.5,
        until_seconds=2.0,
        without=("vid_1",),
    )
    assert milvus_filter.videos(wanted) == (
        '(metadata["n"] == 1) and external_id in ["a", "b"]'
        " and created_at >= 1000005 and created_at < 1000005"
    )
    assert milvus_filter.segments(3, wanted) == (
        "collection_id == 3 and end_seconds > 1.5 and start_seconds < 2.0"
        ' and video_id not in ["vid_1"]'
    )
