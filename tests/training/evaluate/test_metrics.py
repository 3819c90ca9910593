"""Every metric against an obvious, slow version of itself."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.evaluate.accuracy import accuracy
from training.evaluate.base_to_novel import base_and_novel, harmonic_mean
from training.evaluate.retrieval import recall, retrieval
from training.evaluate.views import VIEW_RULES, ViewRule, class_scores, video_vectors, view_features

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, *shape: int, levels: int | None = None) -> NDArray[np.float32]:
    """Random numbers; of few levels, so that ties come up."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, shape) if levels else rng.standard_normal(shape)
    return values.astype(np.float32)


@given(n=st.integers(1, 9), classes=st.integers(1, 9), levels=st.integers(2, 9), seed=SEEDS)
def test_accuracy_counts_videos_one_by_one(n: int, classes: int, levels: int, seed: int) -> None:
    """Right is what fewer than k others reach; mean per class weighs every class alike."""
    scores = drawn(seed, n, classes, levels=levels)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    found = accuracy(scores, labels)
    hits: dict[int, list[bool]] = {1: [], 5: []}
    by_class: dict[int, list[bool]] = {}
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        others = [score for i, score in enumerate(row) if i != label]
        reached_by = sum(score >= row[label] for score in others)
        for k, of_all in hits.items():
            of_all.append(reached_by < k)
        by_class.setdefault(label, []).append(reached_by < 1)
    assert found.videos == n
    assert found.headline == found.top1 == pytest.approx(100 * statistics.mean(hits[1]))
    assert found.top5 == pytest.approx(100 * statistics.mean(hits[5]))
    per_class = statistics.mean(statistics.mean(own) for own in by_class.values())
    assert found.mean_per_class == pytest.approx(100 * per_class)


def test_accuracy_is_top_k_of_a_sort_where_nothing_ties() -> None:
    """As everyone computes it."""
    scores = drawn(3, 40, 12)
    labels = np.random.default_rng(3).integers(0, 12, 40)
    order = np.argsort(-scores, axis=1)
    found = accuracy(scores, labels)
    for k, share in ((1, found.top1), (5, found.top5)):
        hits = [label in row for label, row in zip(labels, order[:, :k], strict=True)]
        assert share == pytest.approx(100 * np.mean(hits))


@given(texts=st.integers(1, 8), more=st.integers(0, 4), levels=st.integers(1, 9), seed=SEEDS)
def test_retrieval_ranks_by_hand(texts: int, more: int, levels: int, seed: int) -> None:
    """1 + how many wrong ones score strictly higher; of a video's texts the best counts."""
    rng = np.random.default_rng(seed)
    videos, count = texts, texts + more
    video_of = rng.permutation(np.concatenate([np.arange(videos), rng.integers(0, videos, more)]))
    text_rows, video_rows = drawn(seed, count, 3, levels=levels), drawn(seed + 1, videos, 3)
    found = retrieval(text_rows, video_rows, video_of)
    score = [[float(np.dot(t, v)) for v in video_rows] for t in text_rows]
    scores = (text_rows @ video_rows.T).tolist()
    assert scores == [pytest.approx(row, abs=1e-4) for row in score]
    of_texts = [
        1 + sum(scores[i][j] > scores[i][video_of[i]] for j in range(videos)) for i in range(count)
    ]
    of_videos = []
    for j in range(videos):
        own = [scores[i][j] for i in range(count) if video_of[i] == j]
        wrong = [scores[i][j] for i in range(count) if video_of[i] != j]
        of_videos.append(min(1 + sum(other > mine for other in wrong) for mine in own))
    for ranks, direction in ((of_texts, found.text_to_video), (of_videos, found.video_to_text)):
        for k, share in ((1, direction.r1), (5, direction.r5), (10, direction.r10)):
            assert share == pytest.approx(100 * statistics.mean(rank <= k for rank in ranks))
        assert direction.median_rank == statistics.median(ranks)
        assert direction.queries == len(ranks)
    assert found.headline == found.text_to_video.r1


def test_equal_scores_share_the_better_rank() -> None:
    """A network that gives every pair the same score gets rank 1 everywhere: see `accuracy`."""
    same = np.ones((3, 2), np.float32)
    assert retrieval(same, same, np.arange(3)).text_to_video.median_rank == 1.0


@pytest.mark.parametrize(
    ("texts", "videos", "video_of", "message"),
    [
        (2, 2, [0], "2 texts with 1 videos"),
        (2, 3, [0, 1], "each of 3 videos needs a text"),
        (2, 1, [0, 1], "each of 1 videos needs a text"),
        (0, 0, [], "no queries"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(
    texts: int, videos: int, video_of: list[int], message: str
) -> None:
    """Nothing, or texts and videos that do not pair up."""
    with pytest.raises(ValueError, match=message):
        retrieval(drawn(0, texts, 2), drawn(1, videos, 2), np.array(video_of, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        retrieval(np.full((1, 2), np.nan, np.float32), drawn(1, 1, 2), np.array([0]))
    with pytest.raises(ValueError, match="no queries"):
        recall(np.zeros(0, np.int64))


@given(
    videos=st.integers(1, 4), views=st.integers(1, 3), frames=st.integers(1, 4), seed=SEEDS,
    rule=st.sampled_from(VIEW_RULES),
    pooling=st.sampled_from(["normalize_then_mean", "mean_then_normalize"]),
)  # fmt: skip
@settings(max_examples=60)
def test_views_are_combined_as_the_rule_says(
    videos: int, views: int, frames: int, seed: int, rule: ViewRule, pooling: str
) -> None:
    """Loops over videos, views and frames give the same scores."""
    embeddings = drawn(seed, videos, views, frames, 5)
    rows = drawn(seed + 1, 6, 5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = view_features(embeddings, pooling=pooling)  # type: ignore[arg-type]
    found = class_scores(
        features, rows, pooling=pooling, logit_scale=30.0, rule=rule,  # type: ignore[arg-type]
    )  # fmt: skip

    def length_one(vector: NDArray[np.float32]) -> NDArray[np.float32]:
        return vector / np.linalg.norm(vector)

    def one_vector(frames_of_it: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        if pooling == "normalize_then_mean":
            return np.mean([length_one(f) for f in frames_of_it], axis=0)  # type: ignore[no-any-return]
        return length_one(np.mean(frames_of_it, axis=0))

    for video, scores in zip(embeddings, found, strict=True):
        if rule == "mean_of_features":
            expected = 30.0 * rows @ one_vector(list(video.reshape(-1, 5)))
        else:
            expected = np.zeros(6)
            for view in video:
                logits = 30.0 * rows @ one_vector(list(view))
                if rule == "sum_of_softmax":
                    logits = np.exp(logits) / np.exp(logits).sum()
                expected = expected + logits
        assert scores == pytest.approx(expected, abs=1e-3)


@given(frames=st.integers(1, 4), seed=SEEDS)
def test_of_one_view_every_rule_ranks_alike(frames: int, seed: int) -> None:
    """Sums and shares of one are the thing itself."""
    features = view_features(drawn(seed, 3, 1, frames, 4), pooling="mean_then_normalize")
    rows = np.eye(4, dtype=np.float32)
    orders = {
        tuple(
            np.argsort(
                class_scores(
                    features, rows, pooling="mean_then_normalize", logit_scale=3.0, rule=rule
                ),
                axis=1,
            ).ravel()
        )
        for rule in VIEW_RULES
    }
    assert len(orders) == 1


def test_retrieval_vectors_keep_the_length_that_the_recipe_gives_them() -> None:
    """Two frames at a right angle: 1/√2 long if frames are normalised first, else 1."""
    frames = np.array([[[[2.0, 0.0], [0.0, 1.0]]]], np.float32)
    first = video_vectors(
        view_features(frames, pooling="normalize_then_mean"), pooling="normalize_then_mean"
    )
    assert first == pytest.approx(np.array([[0.5, 0.5]]))
    second = video_vectors(
        view_features(frames, pooling="mean_then_normalize"), pooling="mean_then_normalize"
    )
    assert second == pytest.approx(np.array([[2.0, 1.0]]) / np.sqrt(5.0))


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_harmonic_mean_is_the_reciprocal_of_mean_reciprocals(b: float, n: float) -> None:
    """It is at most the mean, and 0 as soon as one half fails."""
    found = harmonic_mean(b, n)
    if min(b, n) > 1e-6:
        assert found == pytest.approx(statistics.harmonic_mean([b, n]))
    if b == 0.0 or n == 0.0:
        assert found == 0.0
    assert found <= (b + n) / 2 + 1e-9


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 5), min_size=1))
def test_base_classes_are_the_more_frequent_half(counts: dict[str, int]) -> None:
    """Rounded up; no novel class is more frequent than a base class."""
    base, novel = base_and_novel([name for name, count in counts.items() for _ in range(count)])
    assert sorted((*base, *novel)) == sorted(counts)
    assert len(base) - len(novel) in (0, 1)
    assert not novel or min(counts[b] for b in base) >= max(counts[n] for n in novel)
