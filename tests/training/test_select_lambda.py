"""The λ curve and the rule that chooses on it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.manifest import LambdaPoint, Preprocessing
from tests.training.tiny import ARCHITECTURE, tiny_weights
from training.evaluate.zero_shot import ZeroShot, embed_videos, zero_shot
from training.interpolate import interpolate
from training.models.network import VideoCLIP, build
from training.select_lambda import (
    EvaluationSet,
    SelectionError,
    SelectionRule,
    choose,
    clip_weights,
    curve,
    sweep,
)

PREPROCESSING = Preprocessing(image_size=40, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


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


@pytest.mark.parametrize(
    ("rule", "clip_weight"),
    [
        (SelectionRule(maximise=("source",)), 0.0),
        (SelectionRule(maximise=("unseen",)), 0.25),
        (SelectionRule(maximise=("unseen",), within={"colours": 3.0}), 0.5),
        (SelectionRule(maximise=("unseen",), within={"colours": 1.0}), 0.75),
        (SelectionRule(maximise=("unseen", "colours")), 0.5),
        (SelectionRule(maximise=("colours",), at_least={"source": 80.0}), 0.5),
    ],
)
def test_the_rule_decides(rule: SelectionRule, clip_weight: float) -> None:
    """Largest mean under the constraints; the reason names rule, λ and scores."""
    choice = choose(CURVE, rule)
    assert choice.clip_weight == clip_weight
    assert rule.words() in choice.reason
    assert f"λ = {clip_weight:g}" in choice.reason


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
    """A set that was not measured, or no set at all."""
    with pytest.raises(ValueError, match="nowhere"):
        choose(CURVE, SelectionRule(maximise=("nowhere",)))
    with pytest.raises(ValueError, match="λ = 1 was not measured"):
        choose(CURVE[:-1], SelectionRule(maximise=("unseen",), within={"colours": 3.0}))


def test_weights_reach_both_ends() -> None:
    """Rounded to four decimals."""
    assert clip_weights(3) == (0.0, 0.3333, 0.6667, 1.0)
    with pytest.raises(ValueError, match="steps"):
        clip_weights(0)


def test_the_curve_is_mean_and_spread_over_seeds() -> None:
    """Sample standard deviation; 0 for a single seed."""

    def one(top1: float) -> dict[str, dict[float, ZeroShot]]:
        return {"a": {0.0: ZeroShot(top1, 100.0, 10), 1.0: ZeroShot(20.0, 100.0, 10)}}

    found = curve([one(40.0), one(50.0), one(60.0)])
    assert [p.scores["a"] for p in found] == [50.0, 20.0]
    assert [p.spread["a"] for p in found] == [10.0, 0.0]
    assert curve([one(40.0)])[0].spread == {"a": 0.0}
    with pytest.raises(ValueError, match="different"):
        curve([one(40.0), {"b": one(1.0)["a"]}])


def test_a_sweep_measures_each_lambda_with_its_own_weights() -> None:
    """It equals evaluating each interpolated network alone, and embeds shared frames once."""
    clip, tuned = tiny_weights()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 3, 40, 40, 3), dtype=np.uint8)
    rows = rng.standard_normal((4, 16)).astype(np.float32)
    labels = rng.integers(0, 2, 12)
    sets = {
        "two": EvaluationSet(frames, labels, ("a", "b")),
        "four": EvaluationSet(frames, labels, ("a", "b", "c", "d")),
    }

    def classifier(network: VideoCLIP, names: Sequence[str]) -> NDArray[np.float32]:
        assert network.embedding_size == 16
        return rows[: len(names)]

    seen: list[int] = []
    network = build(ARCHITECTURE)
    found = sweep(
        network,
        clip=clip,
        tuned=tuned,
        sets=sets,
        classifier=classifier,
        preprocessing=PREPROCESSING,
        weights=(0.0, 0.5, 1.0),
        batch_size=5,
        on_batch=seen.append,
    )
    assert sum(seen) == 12 * 3
    for clip_weight in (0.0, 0.5, 1.0):
        alone = build(ARCHITECTURE)
        alone.load_state_dict(interpolate(clip, tuned, clip_weight=clip_weight))
        embeddings = embed_videos(alone, frames, preprocessing=PREPROCESSING)
        for name, size in (("two", 2), ("four", 4)):
            assert found[name][clip_weight] == zero_shot(embeddings, rows[:size], labels)


@given(n=st.integers(1, 8), classes=st.integers(1, 9), seed=st.integers(0, 99))
def test_top_k_equals_sorting(n: int, classes: int, seed: int) -> None:
    """For scores without ties, top-1 and top-5 are what sorting gives."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((n, 6)).astype(np.float32)
    rows = rng.standard_normal((classes, 6)).astype(np.float32)
    labels = rng.integers(0, classes, n)
    order = np.argsort(-(embeddings @ rows.T), axis=1)
    found = zero_shot(embeddings, rows, labels)
    for k, share in ((1, found.top1), (5, found.top5)):
        hits = [labels[i] in order[i, :k] for i in range(n)]
        assert share == pytest.approx(100 * np.mean(hits))


def test_equal_scores_are_no_hit() -> None:
    """A network that gives every label the same score knows nothing."""
    rows = np.ones((3, 2), dtype=np.float32)
    found = zero_shot(np.ones((4, 2), dtype=np.float32), rows, np.zeros(4, dtype=np.int64))
    assert found.top1 == 0.0
    assert found.top5 == 100.0


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=np.int64), "0 embeddings"),
        (np.zeros((2, 2)), np.zeros(1, dtype=np.int64), "2 embeddings with 1 labels"),
        (np.zeros((1, 2)), np.array([3]), "classifier of 2 rows"),
        (np.full((1, 2), np.nan), np.array([0]), "not finite"),
    ],
)
def test_what_cannot_be_scored_is_an_error(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], message: str
) -> None:
    """Nothing, mismatched lengths, unknown labels, broken embeddings."""
    with pytest.raises(ValueError, match=message):
        zero_shot(embeddings.astype(np.float32), np.eye(2, dtype=np.float32), labels)
