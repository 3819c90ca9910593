"""The rules that choose λ on a measured curve."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.manifest import LambdaPoint
from training.selection_rule import SelectionError, SelectionRule, choose


def points(**scores: Sequence[float]) -> tuple[LambdaPoint, ...]:
    """A curve from λ = 0 to 1 with these scores."""
    n = len(next(iter(scores.values())))
    return tuple(
        LambdaPoint(
            clip_weight=i / (n - 1),
            scores={name: values[i] for name, values in scores.items()},
            spread=dict.fromkeys(scores, 0.0),
        )
        for i in range(n)
    )


CURVE = points(
    source=[90.0, 88.0, 85.0, 70.0, 30.0],
    unseen=[60.0, 66.0, 65.0, 50.0, 40.0],
    colours=[60.0, 75.0, 85.0, 87.0, 87.5],
)


def above_floor(
    target: str, *, floor: float | None = None, below: float | None = None
) -> SelectionRule:
    """Best on the target while the source keeps a floor."""
    return SelectionRule(
        maximise=(target,),
        rule="zero_shot_above_floor",
        closed_set="source",
        floor=floor,
        floor_below_best=below,
    )


@pytest.mark.parametrize(
    ("rule", "clip_weight"),
    [
        (SelectionRule(maximise=("source",)), 0.0),
        (SelectionRule(maximise=("unseen",)), 0.25),
        (SelectionRule(maximise=("unseen",), within={"colours": 3.0}), 0.5),
        (SelectionRule(maximise=("unseen",), within={"colours": 1.0}), 0.75),
        (SelectionRule(maximise=("unseen", "colours")), 0.5),
        (SelectionRule(maximise=("colours",), at_least={"source": 80.0}), 0.5),
        (SelectionRule(maximise=("colours", "source"), closed_set="source"), 0.5),
        (SelectionRule(("colours",), rule="harmonic_mean", closed_set="source"), 0.5),
        (
            SelectionRule(("colours",), {}, {"unseen": 66.0}, "harmonic_mean", "source"),
            0.25,
        ),
        (above_floor("colours", floor=86.0), 0.25),
        (above_floor("colours", floor=10.0), 1.0),
        (above_floor("colours", below=5.0), 0.5),
        (SelectionRule(("colours",), rule="knee", closed_set="source"), 0.5),
        (SelectionRule(("unseen",), rule="knee", closed_set="source"), 0.25),
    ],
)
def test_the_rule_decides(rule: SelectionRule, clip_weight: float) -> None:
    """Largest mean under the constraints; the reason names rule, λ and scores."""
    choice = choose(CURVE, rule)
    assert choice.clip_weight == clip_weight
    assert rule.words() in choice.reason
    assert f"λ = {clip_weight:g}" in choice.reason


def test_the_reason_tells_what_the_ends_would_give() -> None:
    """So that a reader sees what the choice is worth."""
    rule = SelectionRule(("colours",), rule="harmonic_mean", closed_set="source")
    assert choose(CURVE, rule).reason == (
        "largest harmonic mean of source and the mean over colours: λ = 0.5 (colours 85.0 %, "
        "source 85.0 %) gives 85.0, against 72.0 at λ = 0 and 44.7 at λ = 1"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maximise": ()}, "maximise: names no set"),
        ({"rule": "knee"}, "closed_set: missing, and rule knee needs it"),
        ({"rule": "knee", "closed_set": "unseen"}, "is in maximise"),
        ({"rule": "zero_shot_above_floor", "closed_set": "source"}, "0 given"),
        ({"rule": "knee", "closed_set": "source", "floor": 3.0}, "1 given"),
    ],
)
def test_a_rule_has_the_fields_it_needs_and_no_others(
    arguments: dict[str, Any], message: str
) -> None:
    """One line names the field."""
    with pytest.raises(ValueError, match=message):
        SelectionRule(**{"maximise": ("unseen",), **arguments})


@given(
    scores=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=9),
    rule=st.sampled_from(["harmonic_mean", "knee"]),
    floor=st.floats(0, 100),
)
def test_rules_choose_what_trying_every_lambda_chooses(
    scores: list[tuple[float, float]], rule: Literal["harmonic_mean", "knee"], floor: float
) -> None:
    """Formulas written out again, and the floor by filtering; the largest λ of equal ones."""
    measured = points(closed=[c for c, _ in scores], open=[z for _, z in scores])
    closed, zero_shot = [c for c, _ in scores], [z for _, z in scores]

    def value(c: float, z: float) -> float:
        if rule == "harmonic_mean":
            return 0.0 if c + z == 0 else 2 * c * z / (c + z)
        along = [
            (v - min(of)) / (max(of) - min(of)) if max(of) > min(of) else 0.0
            for v, of in ((c, closed), (z, zero_shot))
        ]
        return sum(along)

    values = [value(c, z) for c, z in scores]
    chosen = choose(measured, SelectionRule(("open",), rule=rule, closed_set="closed"))
    found = [p.clip_weight for p in measured].index(
        min((p.clip_weight for p in measured), key=lambda w: abs(w - chosen.clip_weight))
    )
    assert values[found] == pytest.approx(max(values), abs=2e-6)
    assert all(v < max(values) + 2e-6 for v in values[found + 1 :])
    above = [z for c, z in scores if c >= floor]
    floored = SelectionRule(
        ("open",), rule="zero_shot_above_floor", closed_set="closed", floor=floor
    )
    if not above:
        with pytest.raises(SelectionError, match="closed needs"):
            choose(measured, floored)
    else:
        assert f"open {max(above):.1f} %" in choose(measured, floored).reason


def test_between_equals_the_larger_lambda_wins() -> None:
    """It forgets less."""
    flat = points(a=[50.0, 50.0, 40.0])
    assert choose(flat, SelectionRule(maximise=("a",))).clip_weight == 0.5


def test_a_rule_that_cannot_be_satisfied_says_how_far_it_is() -> None:
    """The best that was reached is part of the error."""
    rule = SelectionRule(maximise=("unseen",), at_least={"source": 95.0})
    with pytest.raises(SelectionError, match=r"source needs 95\.0 %, and reaches at most 90\.0 %"):
        choose(CURVE, rule)


def test_a_rule_about_other_sets_is_an_error() -> None:
    """A set that was not measured, or λ = 1 where CLIP is compared with."""
    with pytest.raises(SelectionError, match="not measured: nowhere"):
        choose(CURVE, SelectionRule(maximise=("nowhere",)))
    with pytest.raises(SelectionError, match="not measured: unseen"):
        choose((), SelectionRule(maximise=("unseen",)))
    with pytest.raises(SelectionError, match="λ = 1 was not measured"):
        choose(CURVE[:-1], SelectionRule(maximise=("unseen",), within={"colours": 3.0}))
