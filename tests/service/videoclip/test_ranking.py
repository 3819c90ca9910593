"""Where the right label stands, and which of several equally good λ is taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.videoclip.ranking import are_equal, best_clip_weight, ranks


@given(
    arrays(np.float32, (6, 7), elements=st.integers(-9, 9)),
    st.lists(st.integers(0, 6), min_size=6, max_size=6),
)
def test_a_rank_counts_every_other_label_that_scores_as_high(
    scores: np.ndarray, labels: list[int]
) -> None:
    """Equal to the obvious slow way; ties count against the model."""
    slow = [
        sum(s >= row[label] for n, s in enumerate(row.tolist()) if n != label)
        for row, label in zip(scores, labels, strict=True)
    ]
    assert ranks(scores, labels).tolist() == slow
    assert ranks(scores, np.array(labels)).tolist() == slow


def test_of_equal_merits_the_larger_lambda_is_taken() -> None:
    """Also when rounding parts them; not when they differ."""
    assert best_clip_weight({0.0: 80.0, 0.5: 80.0 - 1e-9, 1.0: 60.0}) == 0.5
    assert best_clip_weight({0.0: 80.0, 0.5: 79.99, 1.0: 60.0}) == 0.0
    assert are_equal(80.0, 80.0 - 1e-9)
    assert not are_equal(80.0, 79.99)


def test_nothing_measured_has_no_best() -> None:
    """An empty curve is a mistake of the caller."""
    with pytest.raises(ValueError, match="empty"):
        best_clip_weight({})
