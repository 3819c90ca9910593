"""The λ curve of networks in memory."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing
from tests.training.tiny import ARCHITECTURE, tiny_weights
from training.evaluate.accuracy import Accuracy
from training.evaluate.measure import Measured
from training.evaluate.retrieval import Retrieval, retrieval
from training.evaluate.views import VIEW_RULES, ViewRule, video_vectors
from training.evaluate.zero_shot import embed_views, zero_shot
from training.interpolate import interpolate
from training.models.network import VideoCLIP, build
from training.select_lambda import (
    EvaluationSet,
    RetrievalSet,
    clip_weights,
    curve,
    sweep,
)

PREPROCESSING = Preprocessing(image_size=40, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def scored(top1: float) -> Accuracy:
    """A score with this top-1."""
    return Accuracy(top1=top1, top5=100.0, mean_per_class=top1, videos=10)


def test_weights_reach_both_ends() -> None:
    """Rounded to four decimals."""
    assert clip_weights(3) == (0.0, 0.3333, 0.6667, 1.0)
    with pytest.raises(ValueError, match="steps"):
        clip_weights(0)


def test_the_curve_is_mean_and_spread_over_seeds() -> None:
    """Sample standard deviation; 0 for a single seed."""

    def one(top1: float) -> dict[str, dict[float, Accuracy]]:
        return {"a": {0.0: scored(top1), 1.0: scored(20.0)}}

    found = curve([one(40.0), one(50.0), one(60.0)])
    assert [p.scores["a"] for p in found] == [50.0, 20.0]
    assert [p.spread["a"] for p in found] == [10.0, 0.0]
    assert curve([one(40.0)])[0].spread == {"a": 0.0}
    with pytest.raises(ValueError, match="different"):
        curve([one(40.0), {"b": one(1.0)["a"]}])
    with pytest.raises(ValueError, match="no sweeps"):
        curve([])


@given(st.lists(st.tuples(st.floats(0.5, 100.0), st.floats(0.5, 100.0)), min_size=1, max_size=5))
def test_the_harmonic_mean_is_of_base_and_novel_averaged_over_seeds(
    seeds: list[tuple[float, float]],
) -> None:
    """Summed by hand; the spread is that of each seed's own harmonic mean."""
    sweeps = [
        {"a": {0.5: Measured({"base": scored(base), "novel": scored(novel)})}}
        for base, novel in seeds
    ]
    (point,) = curve(sweeps)
    base = sum(pair[0] for pair in seeds) / len(seeds)
    novel = sum(pair[1] for pair in seeds) / len(seeds)
    assert point.scores["a"] == pytest.approx(2 * base * novel / (base + novel))
    own = [2 * b * n / (b + n) for b, n in seeds]
    middle = sum(own) / len(own)
    variance = sum((value - middle) ** 2 for value in own) / max(1, len(own) - 1)
    assert point.spread["a"] == pytest.approx(variance**0.5, abs=1e-9)


def test_other_parts_are_averaged_one_seed_at_a_time() -> None:
    """The mean over draws and seeds, of whatever is neither base nor novel."""
    sweeps = [
        {"a": {0.5: Measured({"draw 0": scored(first), "draw 1": scored(second)})}}
        for first, second in ((40.0, 60.0), (10.0, 20.0))
    ]
    assert curve(sweeps)[0].scores["a"] == pytest.approx((40 + 60 + 10 + 20) / 4)


@pytest.mark.parametrize("rule", VIEW_RULES)
def test_a_sweep_measures_each_lambda_with_its_own_weights(rule: ViewRule) -> None:
    """It equals evaluating each interpolated network alone, and embeds shared frames once."""
    clip, tuned = tiny_weights()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 2, 3, 40, 40, 3), dtype=np.uint8)
    rows = rng.standard_normal((6, 16)).astype(np.float32)
    labels = rng.integers(0, 2, 6)
    video_of = rng.permutation(6)
    texts = tuple("abcdef")
    sets: dict[str, EvaluationSet | RetrievalSet] = {
        "two": EvaluationSet(frames, labels, ("a", "b")),
        "four": EvaluationSet(frames, labels, ("a", "b", "c", "d")),
        "sentences": RetrievalSet(frames, texts, video_of),
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
        sentences=classifier,
        rule=rule,
        preprocessing=PREPROCESSING,
        weights=(0.0, 0.5, 1.0),
        batch_size=5,
        on_batch=seen.append,
    )
    assert sum(seen) == 6 * 2 * 3
    for clip_weight in (0.0, 0.5, 1.0):
        alone = build(ARCHITECTURE)
        alone.load_state_dict(interpolate(clip, tuned, clip_weight=clip_weight))
        features = embed_views(alone, frames, preprocessing=PREPROCESSING)
        for name, size in (("two", 2), ("four", 4)):
            assert found[name][clip_weight] == zero_shot(
                features,
                rows[:size],
                labels,
                pooling="normalize_then_mean",
                logit_scale=float(alone.logit_scale.detach().exp()),
                rule=rule,
            )
        vectors = video_vectors(features, pooling="normalize_then_mean")
        assert found["sentences"][clip_weight] == retrieval(rows, vectors, video_of)
    scores = [found["sentences"][w] for w in (0.0, 0.5, 1.0)]
    assert [p.scores["sentences"] for p in curve([found])] == [
        score.text_to_video.r1 for score in scores if isinstance(score, Retrieval)
    ]


def test_clips_without_a_view_axis_are_one_view() -> None:
    """As the demo keeps them."""
    clip, tuned = tiny_weights()
    frames = np.random.default_rng(1).integers(0, 256, (4, 3, 40, 40, 3), dtype=np.uint8)
    rows = np.eye(2, 16, dtype=np.float32)
    found = [
        sweep(
            build(ARCHITECTURE),
            clip=clip,
            tuned=tuned,
            sets={"a": EvaluationSet(f, np.array([0, 1, 0, 1]), ("a", "b"))},
            classifier=lambda _network, names: rows[: len(names)],
            preprocessing=PREPROCESSING,
            weights=(0.5,),
        )
        for f in (frames, frames[:, None])
    ]
    assert found[0] == found[1]


def test_what_cannot_be_swept_is_an_error() -> None:
    """No sets; sentences that nothing encodes."""
    clip, tuned = tiny_weights()
    frames = np.zeros((1, 3, 40, 40, 3), dtype=np.uint8)
    sets: dict[str, EvaluationSet | RetrievalSet] = {
        "pairs": RetrievalSet(frames, ("a",), np.array([0]))
    }
    for asked, message in ((sets, "nothing encodes sentences"), ({}, "no sets")):
        with pytest.raises(ValueError, match=message):
            sweep(
                build(ARCHITECTURE),
                clip=clip,
                tuned=tuned,
                sets=asked,
                classifier=lambda _network, names: np.eye(len(names), 16, dtype=np.float32),
                preprocessing=PREPROCESSING,
                weights=(0.0,),
            )


def test_equal_scores_are_no_hit() -> None:
    """A network that gives every label the same score knows nothing."""
    rows = np.ones((3, 2), dtype=np.float32)
    labels = np.zeros(4, dtype=np.int64)
    found = zero_shot(np.ones((4, 1, 2), np.float32), rows, labels, pooling="normalize_then_mean")
    assert found.top1 == 0.0
    assert found.top5 == 100.0


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 1, 2)), np.zeros(0, dtype=np.int64), "0 rows"),
        (np.zeros((2, 1, 2)), np.zeros(1, dtype=np.int64), "2 rows of scores with 1 labels"),
        (np.zeros((1, 1, 2)), np.array([3]), "for 2 columns"),
        (np.full((1, 1, 2), np.nan), np.array([0]), "not finite"),
    ],
)
def test_what_cannot_be_scored_is_an_error(
    features: NDArray[np.float32], labels: NDArray[np.int64], message: str
) -> None:
    """Nothing, mismatched lengths, unknown labels, broken embeddings."""
    rows = np.eye(2, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        zero_shot(features.astype(np.float32), rows, labels, pooling="normalize_then_mean")
