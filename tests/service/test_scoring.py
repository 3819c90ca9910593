"""Softmax, cosine, independent: arithmetic, invariances, and a real film with real embeddings."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.scoring import (
    MIN_BACKGROUND,
    RIVALS,
    background_level,
    cosine,
    independent,
    level_with_negatives,
    logits,
    none_score,
    softmax,
)

Floats = npt.NDArray[np.float64]

VALUES = st.floats(-200, 200, allow_nan=False, width=64)
LOGITS = arrays(np.float64, st.integers(1, 30), elements=VALUES)
BACKGROUND = arrays(np.float64, st.integers(MIN_BACKGROUND, 80), elements=VALUES)


@given(LOGITS)
def test_softmax_is_a_distribution_over_the_given_labels(values: Floats) -> None:
    """Scores lie in [0, 1], sum to 1, and rank as the logits do."""
    scores = softmax(values)
    assert np.all((scores >= 0) & (scores <= 1))
    assert scores.sum() == pytest.approx(1)
    assert np.argmax(values) == np.argmax(scores) or np.isclose(
        values.max(), values[scores.argmax()]
    )


def test_softmax_of_huge_logits_is_finite() -> None:
    """No overflow at 1e4."""
    assert softmax(np.array([1e4, 1e4 - np.log(3)])) == pytest.approx([0.75, 0.25])


def test_softmax_of_one_label_is_one() -> None:
    """Which is why a lone label gets a warning."""
    assert softmax(np.array([-50.0])) == pytest.approx([1.0])


def test_logits_follow_the_recipe() -> None:
    """A pooled vector that is not of unit length lowers the logit and not the cosine."""
    pooled = np.array([0.6, 0.0], np.float32)
    text = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert logits(pooled, text=text, logit_scale=100.0) == pytest.approx([60.0, 0.0])
    assert cosine(pooled, text=text) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_cosine_of_no_direction_is_an_error(bad: list[float]) -> None:
    """A zero or non-finite vector never becomes a score."""
    with pytest.raises(ValueError, match="zero or not finite"):
        cosine(np.array(bad), text=np.eye(2))


@given(LOGITS, BACKGROUND)
def test_independent_scores_follow_their_label_in_any_order(
    values: Floats, background: Floats
) -> None:
    """Neither the order of the labels nor that of the background matters."""
    order = np.random.default_rng(0).permutation(len(values))
    level = background_level(background)
    assert background_level(background[::-1]) == pytest.approx(level)
    assert np.array_equal(
        independent(values, level=level)[order], independent(values[order], level=level)
    )


@given(LOGITS, LOGITS, BACKGROUND)
def test_other_labels_do_not_change_an_independent_score(
    values: Floats, others: Floats, background: Floats
) -> None:
    """Asking more labels leaves each score as it was; none_score can only fall."""
    level = background_level(background)
    alone = independent(values, level=level)
    together = independent(np.concatenate([values, others]), level=level)
    assert np.array_equal(alone, together[: len(values)])
    assert none_score(together) <= none_score(alone)


@given(LOGITS, BACKGROUND)
def test_duplicates_score_alike_and_count_once(values: Floats, background: Floats) -> None:
    """A label asked twice gets the same score twice and does not move none_score."""
    level = background_level(background)
    twice = independent(np.repeat(values, 2), level=level)
    assert np.array_equal(twice[::2], twice[1::2])
    assert none_score(twice) == none_score(independent(values, level=level))


@given(BACKGROUND, st.integers(2, 5))
def test_a_background_given_several_times_is_the_same_background(
    background: Floats, times: int
) -> None:
    """The level depends on the distribution of the background, hardly on its size."""
    once = background_level(np.repeat(background, 20))
    assert background_level(np.repeat(background, 20 * times)) == pytest.approx(once, abs=0.06)


@given(LOGITS, BACKGROUND, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(
    values: Floats, background: Floats, shift: float
) -> None:
    """Only how far a label is above the background counts, not the height of both."""
    before = independent(values, level=background_level(background))
    after = independent(values + shift, level=background_level(background + shift))
    assert after == pytest.approx(before, abs=1e-9)


@given(LOGITS, BACKGROUND)
def test_independent_scores_are_probabilities_that_rise_with_the_logit(
    values: Floats, background: Floats
) -> None:
    """In [0, 1], ordered as the logits, finite for any of them."""
    scores = independent(np.sort(values), level=background_level(background))
    assert np.all((scores >= 0) & (scores <= 1))
    assert np.all(np.diff(scores) >= 0)


def test_half_means_as_likely_as_five_hundred_average_rivals() -> None:
    """With a flat background the level is that of one rival plus log RIVALS."""
    level = background_level(np.full(100, 3.0))
    assert level == pytest.approx(3.0 + np.log(RIVALS))
    assert independent(np.array([level]), level=level) == pytest.approx([0.5])


def test_few_true_labels_in_the_background_do_not_lower_a_score() -> None:
    """Up to 5 % of a background may be true of the video without effect."""
    wrong = np.linspace(10, 20, 95)
    assert background_level(np.append(wrong, np.full(5, 40.0))) == background_level(
        np.append(wrong, np.full(5, 20.0))
    )


@given(LOGITS, st.floats(-50, 50))
def test_negative_texts_only_raise_the_bar(negatives: Floats, level: float) -> None:
    """With negatives the level is at least the old one and at least each negative."""
    raised = level_with_negatives(level, negatives=negatives)
    assert raised >= level - 1e-12
    assert raised >= negatives.max() - 1e-12
    assert level_with_negatives(level, negatives=np.array([])) == level


def test_a_label_as_likely_as_its_negative_stays_below_half() -> None:
    """A tie with a negative text far above the background is a score of one half."""
    level = level_with_negatives(5.0, negatives=np.array([30.0]))
    assert independent(np.array([30.0]), level=level) == pytest.approx([0.5])


@pytest.mark.parametrize("count", [0, MIN_BACKGROUND - 1])
def test_a_background_that_says_nothing_is_refused(count: int) -> None:
    """Too few labels are an error that tells how many are needed."""
    with pytest.raises(ValueError, match=f"at least {MIN_BACKGROUND}"):
        background_level(np.zeros(count))


def test_a_background_logit_that_is_not_finite_is_refused() -> None:
    """NaN never becomes a level."""
    with pytest.raises(ValueError, match="not finite"):
        background_level(np.append(np.zeros(30), np.nan))


# A real film (a woman lifts a barbell), real ViT-B/32 embeddings, four real vocabularies.

VOCABULARIES = {
    "coco": "coco_clip_a+cname.npy",
    "lvis": "lvis_v1_clip_a+cname.npy",
    "o365": "o365_clip_a+cnamefix.npy",
    "oid": "oid_clip_a+cname.npy",
}


class Film:
    """Logits of every label of every vocabulary for the film."""

    def __init__(self, folder: Path) -> None:
        frames = np.load(folder / "v_GGSY1Qvo990_vitb32.npz")["features"].astype(np.float64)
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        self.pooled = frames.mean(axis=0)
        self.names: dict[str, list[str]] = json.loads((folder / "class_names.json").read_text())
        self.logits: dict[str, Floats] = {}
        for name, file in VOCABULARIES.items():
            text = np.load(folder / file).astype(np.float64)
            text /= np.linalg.norm(text, axis=1, keepdims=True)
            self.logits[name] = logits(self.pooled, text=text, logit_scale=100.0)

    def passing(self, labels: str, *, background: str) -> list[str]:
        """Names whose independent score is at least one half, best first."""
        scores = independent(self.logits[labels], level=background_level(self.logits[background]))
        order = [index for index in np.argsort(-scores) if scores[index] >= 0.5]
        return [self.names[labels][index].lower() for index in order]


@pytest.fixture(scope="module")
def film(shared_data: Callable[[str], Path]) -> Film:
    """The film's logits."""
    return Film(shared_data("clip_vitb32"))


@pytest.mark.parametrize("background", VOCABULARIES)
def test_barbell_is_found_among_1203_labels(film: Film, background: str) -> None:
    """It is the best LVIS label and passes, whichever vocabulary is the background."""
    assert film.passing("lvis", background=background)[0] == "barbell"


@pytest.mark.parametrize("background", VOCABULARIES)
def test_of_coco_nothing_but_a_person_may_pass(film: Film, background: str) -> None:
    """COCO knows no barbell: none of its 80 labels may pass, except perhaps the person."""
    assert set(film.passing("coco", background=background)) <= {"person"}


@pytest.mark.parametrize("background", VOCABULARIES)
@pytest.mark.parametrize("labels", VOCABULARIES)
def test_only_what_belongs_to_a_gym_passes(film: Film, labels: str, background: str) -> None:
    """Of 2,148 labels at most three pass, and all of them are things of a gym."""
    gym = {"barbell", "dumbbell", "mat (gym equipment)"}
    assert set(film.passing(labels, background=background)) <= gym


def test_none_of_these_is_near_one_without_and_near_zero_with_the_right_label(film: Film) -> None:
    """None of COCO's 80 labels applies, one of LVIS's 1,203 does."""
    level = background_level(film.logits["oid"])
    assert none_score(independent(film.logits["coco"], level=level)) > 0.9
    assert none_score(independent(film.logits["lvis"], level=level)) < 0.05


def test_levels_hardly_depend_on_the_vocabulary(film: Film) -> None:
    """Four backgrounds of 80 to 1,203 labels agree within one unit of logit."""
    levels = [background_level(film.logits[name]) for name in VOCABULARIES]
    assert max(levels) - min(levels) < 1.0
