"""From frame embeddings to one vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.pooling import Pooling, combine_views, pool, text_classifier, unit

POOLINGS: tuple[Pooling, ...] = ("normalize_then_mean", "mean_then_normalize")


def embeddings(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Random vectors, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_normalize_then_mean_is_the_mean_of_the_frame_cosines() -> None:
    """Open-VCLIP: the dot product with a unit text vector equals the mean cosine over frames."""
    frames, text = embeddings(3, 8, 16), unit(embeddings(5, 16, seed=1))
    cosines = np.einsum("btd,cd->btc", unit(frames), text).mean(axis=1)
    pooled = pool(frames, pooling="normalize_then_mean")
    np.testing.assert_allclose(pooled @ text.T, cosines, atol=1e-6)
    assert np.all(np.linalg.norm(pooled, axis=-1) < 1)


def test_mean_then_normalize_is_a_unit_vector() -> None:
    """ViFi-CLIP: embeddings are averaged as they are, the mean has length 1."""
    frames = embeddings(3, 8, 16)
    pooled = pool(frames, pooling="mean_then_normalize")
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=-1), 1, atol=1e-6)
    direction = frames.mean(axis=1)
    np.testing.assert_allclose(
        pooled, direction / np.linalg.norm(direction, axis=-1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@given(count=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_equal_frames_pool_to_themselves(pooling: Pooling, count: int, scale: float) -> None:
    """A still video of any length and any scale of embedding has its frame's unit vector."""
    frame = embeddings(1, 16)
    frames = np.repeat(frame * np.float32(scale), count, axis=0)
    np.testing.assert_allclose(pool(frames, pooling=pooling), unit(frame)[0], atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_one_view_is_its_own_combination(pooling: Pooling) -> None:
    """Combining a single view changes nothing; types stay float32."""
    pooled = pool(embeddings(2, 1, 8, 16), pooling=pooling)
    combined = combine_views(pooled, pooling=pooling)
    np.testing.assert_allclose(combined, pooled[:, 0], atol=1e-6)
    assert combined.dtype == np.float32


def test_views_are_averaged_linearly() -> None:
    """Open-VCLIP's views: the logits of the combination are the mean of the views' logits."""
    pooled = pool(embeddings(3, 8, 16), pooling="normalize_then_mean")
    text = unit(embeddings(5, 16, seed=1))
    combined = combine_views(pooled, pooling="normalize_then_mean")
    np.testing.assert_allclose(combined @ text.T, (pooled @ text.T).mean(axis=0), atol=1e-6)


def test_text_classifier_normalises_twice() -> None:
    """Each template counts alike whatever its length, and rows have length 1."""
    texts = embeddings(4, 28, 16)
    scaled = texts * np.linspace(0.1, 10, 28, dtype=np.float32)[None, :, None]
    classifier = text_classifier(texts)
    np.testing.assert_allclose(classifier, text_classifier(scaled), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(classifier, axis=-1), 1, atol=1e-6)
    assert classifier.dtype == np.float32


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(bad: float) -> None:
    """Zero, NaN and infinity are never turned into a score."""
    frames = embeddings(2, 3, 4)
    frames[1, 2] = bad
    with pytest.raises(ValueError, match="1 of 6 embeddings are zero or not finite"):
        pool(frames, pooling="normalize_then_mean")


def test_an_unknown_pooling_is_an_error() -> None:
    """The name is checked even though types forbid it."""
    with pytest.raises(ValueError, match="'max' is unknown"):
        pool(embeddings(2, 3), pooling="max")  # type: ignore[arg-type]
