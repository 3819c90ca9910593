"""From vectors to tags: order, several texts, negatives, filters, warnings."""

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.label_encoder import TextVectors
from service.labels import LabelQuery
from service.scoring import MIN_BACKGROUND, Platt, ScoreKind
from service.tags import LabelVectors, Tag, flat_texts, keep, label_warnings, score_tags
from service.videoclip.background import EVERYDAY_LABELS, background_labels

D = 6
POOLED = np.array([0.9, 0, 0, 0, 0, 0], np.float32)


def row(cosine: float) -> npt.NDArray[np.float32]:
    """A unit vector with this cosine to the video."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0, 0, 0, 0], np.float32)


def vectors(*cosines: float, background: float | None = 0.0) -> LabelVectors:
    """Vectors of texts with these cosines, and a flat background."""
    texts = TextVectors(np.stack([row(c) for c in cosines]), np.zeros(len(cosines), np.bool_), 0)
    if background is None:
        return LabelVectors(texts, None)
    return LabelVectors(texts, np.stack([row(background)] * MIN_BACKGROUND))


def score(
    labels: list[LabelQuery], found: LabelVectors, kind: ScoreKind
) -> tuple[list[Tag], float | None]:
    """Tags with a logit scale of 10."""
    return score_tags(POOLED, labels=labels, vectors=found, scores=kind, logit_scale=10.0)


@pytest.mark.parametrize("kind", get_args(ScoreKind))
def test_tags_are_best_first_and_carry_logit_and_cosine(kind: ScoreKind) -> None:
    """The logit is that of the recipe, the cosine that of the angle, whatever the score."""
    labels = [LabelQuery(("low",)), LabelQuery(("high",), id="h")]
    tags, _ = score(labels, vectors(0.1, 0.6), kind)
    assert [(tag.label, tag.label_id) for tag in tags] == [("high", "h"), ("low", None)]
    assert tags[0].logit == pytest.approx(10 * 0.9 * 0.6)
    assert tags[0].cosine == pytest.approx(0.6)


def test_softmax_is_over_the_labels_and_has_no_none_score() -> None:
    """Scores sum to one; only independent scores know none of these."""
    labels = [LabelQuery((name,)) for name in "abc"]
    tags, nothing = score(labels, vectors(0.1, 0.2, 0.3, background=None), "softmax")
    assert sum(tag.score for tag in tags) == pytest.approx(1)
    assert nothing is None


def test_a_label_with_several_texts_is_their_mean_direction() -> None:
    """Two texts on both sides of the video's direction meet in it."""
    up, down = row(0.8), row(0.8) * np.array([1, -1, 1, 1, 1, 1], np.float32)
    texts = TextVectors(np.stack([up, down]), np.zeros(2, np.bool_), 0)
    tags, _ = score([LabelQuery(("a", "b"))], LabelVectors(texts, None), "cosine")
    assert tags[0].label == "a"
    assert tags[0].score == pytest.approx(1.0)


def test_a_calibrated_artefact_gives_probabilities_in_the_same_order() -> None:
    """Platt's line moves independent scores and what follows from them, and no other kind."""
    labels, found = [LabelQuery(("dog",)), LabelQuery(("tree",))], vectors(0.9, 0.8)
    for kind in get_args(ScoreKind):
        plain, _ = score(labels, found, kind)
        tags, nothing = score_tags(
            POOLED,
            labels=labels,
            vectors=found,
            scores=kind,
            logit_scale=10.0,
            calibration=Platt(slope=0.5, intercept=-1.0),
        )
        assert [tag.label for tag in tags] == ["dog", "tree"]
        if kind != "independent":
            assert tags == plain
            continue
        for tag, before in zip(tags, plain, strict=True):
            margin = np.log(before.score / (1 - before.score))
            assert tag.score == pytest.approx(1 / (1 + np.exp(1.0 - 0.5 * margin)))
        assert nothing == pytest.approx(1 - tags[0].score)


def test_negative_texts_lower_their_own_label_only() -> None:
    """In independent mode a label must beat its negatives; the others do not notice."""
    plain = [LabelQuery(("dog",)), LabelQuery(("tree",))]
    guarded = [LabelQuery(("dog",), negative=("wolf",)), LabelQuery(("tree",))]
    before, _ = score(plain, vectors(0.9, 0.8), "independent")
    after, _ = score(guarded, vectors(0.9, 0.95, 0.8), "independent")
    by_name = {tag.label: tag.score for tag in after}
    assert by_name["dog"] < before[0].score
    assert by_name["dog"] < 0.5
    assert by_name["tree"] == before[1].score


def test_none_of_these_is_the_rest_of_the_best() -> None:
    """1 - the highest independent score."""
    tags, nothing = score([LabelQuery((n,)) for n in "ab"], vectors(0.9, 0.1), "independent")
    assert nothing == pytest.approx(1 - tags[0].score)


@given(st.permutations(range(6)))
def test_the_order_of_labels_does_not_matter(order: list[int]) -> None:
    """Every label keeps its score wherever it stands in the request."""
    cosines = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    labels = [LabelQuery((str(n),)) for n in range(6)]
    for kind in get_args(ScoreKind):
        first, none_first = score(labels, vectors(*cosines), kind)
        shuffled = vectors(*(cosines[n] for n in order))
        second, none_second = score([labels[n] for n in order], shuffled, kind)
        assert [tag.label for tag in first] == [tag.label for tag in second]
        assert [tag.score for tag in first] == pytest.approx([tag.score for tag in second])
        assert none_first == none_second


def test_equal_scores_keep_the_order_of_the_request() -> None:
    """Answers are the same each time."""
    labels = [LabelQuery((name,)) for name in "cab"]
    tags, _ = score(labels, vectors(0.5, 0.5, 0.5), "cosine")
    assert [tag.label for tag in tags] == ["c", "a", "b"]


def test_threshold_and_top_k_filter_after_scoring() -> None:
    """Scores are over all labels, the answer holds some."""
    labels = [LabelQuery((name,)) for name in "abc"]
    tags, _ = score(labels, vectors(0.1, 0.5, 0.9), "cosine")
    assert [tag.label for tag in keep(tags, top_k=2, threshold=None)] == ["c", "b"]
    assert [tag.label for tag in keep(tags, top_k=None, threshold=0.5)] == ["c"] or [
        tag.label for tag in keep(tags, top_k=None, threshold=0.499)
    ] == ["c", "b"]
    assert keep(tags, top_k=5, threshold=2.0) == ()


def test_texts_are_listed_label_by_label() -> None:
    """Texts, then negatives, of each label in turn."""
    labels = [LabelQuery(("a", "b"), negative=("c",)), LabelQuery(("d",))]
    assert flat_texts(labels) == ["a", "b", "c", "d"]


def test_warnings_say_what_a_score_cannot() -> None:
    """A lone softmax label, cut texts, a borrowed background."""
    one = [LabelQuery(("a",))]
    found = label_warnings(one, vectors(0.5), scores="softmax", few_background=True)
    assert [warning.code for warning in found] == ["single_label"]
    found = label_warnings(one, vectors(0.5), scores="independent", few_background=True)
    assert [warning.code for warning in found] == ["few_background_labels"]
    cut = LabelVectors(TextVectors(np.stack([row(0.5)]), np.ones(1, np.bool_), 0), None)
    found = label_warnings(one, cut, scores="cosine", few_background=False)
    assert [warning.code for warning in found] == ["label_truncated"]
    assert "'a'" in found[0].detail


def test_few_background_labels_are_filled_up() -> None:
    """An artefact's own are used alone when they are enough, each once."""
    own = [f"label {n}" for n in range(MIN_BACKGROUND)]
    assert background_labels([*own, *own]) == (own, False)
    filled, few = background_labels(["dog", "zebra"])
    assert few
    assert filled[:2] == ["dog", "zebra"]
    assert set(filled) == {"zebra", *EVERYDAY_LABELS}
    assert len(EVERYDAY_LABELS) == len(set(EVERYDAY_LABELS)) > 5 * MIN_BACKGROUND
