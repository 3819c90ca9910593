"""Points and the recommended λ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.curve import Point, measure, recommend
from service.schemas_jobs import LambdaFloor, LambdaRule

CLASSES = ["a", "b", "c", "d", "e", "f", "g"]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
)
def test_a_point_is_what_counting_gives(pairs: list[tuple[int, int]]) -> None:
    """Top-1 and top-5 of all and of each class, means and the worst, in percent."""
    found, labels = [p[0] for p in pairs], [p[1] for p in pairs]
    point = measure(0.3, found, labels=labels, classes=CLASSES)
    assert point.top1 == pytest.approx(100 * sum(r == 0 for r in found) / len(found))
    assert point.top5 == pytest.approx(100 * sum(r < 5 for r in found) / len(found))
    for each in point.classes:
        own = [r for r, owner in pairs if CLASSES[owner] == each.label]
        assert each.videos == len(own)
        assert each.top1 == pytest.approx(100 * own.count(0) / len(own))
    shares = [each.top1 for each in point.classes]
    assert point.value("mean_class") == pytest.approx(sum(shares) / len(shares))
    assert point.value("worst_class") == min(shares)
    assert sum(each.videos for each in point.classes) == len(pairs)


def _points(*hits: int) -> list[Point]:
    """Points at equal distances; each has so many of ten videos right."""
    return [
        measure(n / 10, [0] * k + [6] * (10 - k), labels=[0] * 5 + [1] * 5, classes=CLASSES)
        for n, k in enumerate(hits)
    ]


def test_the_best_wins_and_of_equals_the_larger() -> None:
    """And the reason says so, with the lambdas that the set cannot tell apart."""
    found = recommend(_points(3, 9, 8, 9, 2), LambdaRule())
    assert found.clip_weight == 0.3
    assert found.why == (
        "0.3 has the highest top-1: 90.0 % of 10 videos; 2 lambdas are equal in that, of them"
        " the largest forgets least."
    )
    near = recommend(_points(3, 6, 7, 6, 2), LambdaRule())
    assert near.clip_weight == 0.2
    assert near.why.endswith("0.1 to 0.3 are within one standard error (14.5 points).")


def test_a_floor_excludes_what_is_below_it() -> None:
    """The best of the rest is taken; without a rest there is none, and the reason is told."""
    floor = LambdaFloor(metric="worst_class", at_least=70)
    points = _points(5, 8, 5)
    points[1] = measure(0.1, [0] * 8 + [6] * 2, labels=[0, 1] * 5, classes=CLASSES)
    found = recommend(points, LambdaRule(floor=floor))
    assert found.clip_weight == 0.1
    assert "of the worst class of at least 70 %" in found.why
    none = recommend(points, LambdaRule(floor=LambdaFloor(metric="top5", at_least=90)))
    assert none.clip_weight is None
    assert none.why == "No lambda reaches top-5 of 90 %; the most is 80.0 % at 0.1."
