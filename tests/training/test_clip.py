"""The picture stage: CLIP's contrastive training, and the texts it keeps apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from tests.training.tiny import ARCHITECTURE
from training.losses import closeness_loss
from training.models.network import VideoCLIP, build
from training.recipes import clip

SETTINGS = clip.CLIPSettings(steps=30, batch_size=8, peak_learning_rate=3e-3)
WORDS = {"red": 1, "blue": 2, "left": 3, "right": 4}


def _encode(texts: list[str]) -> NDArray[np.int64]:
    """Words as ids between a start (5) and an end (6, the largest)."""
    rows = [[5, *(WORDS[word] for word in text.split()), 6] for text in texts]
    return np.array([row + [0] * (4 - len(row)) for row in rows], np.int64)


def _normalize(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (pictures.transpose(0, 3, 1, 2).astype(np.float32) - np.float32(128)) / np.float32(64)


def _pictures() -> tuple[NDArray[np.uint8], list[str]]:
    """Red and blue pictures; half of the captions say left or right, which none of them shows."""
    pictures = np.zeros((16, 40, 40, 3), np.uint8)
    pictures[:8, :, :, 0] = 255
    pictures[8:, :, :, 2] = 255
    captions = ["red left", "red right"] * 4 + ["blue left", "blue right"] * 4
    return pictures, captions


def _train(network: VideoCLIP, settings: clip.CLIPSettings) -> list[float]:
    losses: list[float] = []
    pictures, captions = _pictures()
    clip.train(
        network,
        pictures,
        captions,
        encode=_encode,
        normalize=_normalize,
        prompts=("{}",),
        apart=[["red left", "red right"], ["blue left", "blue right"]],
        settings=settings,
        on_step=lambda _, loss: losses.append(loss),
    )
    return losses


def _cosine(network: VideoCLIP, first: str, second: str) -> float:
    with torch.no_grad():
        texts = network.encode_text(torch.from_numpy(_encode([first, second])))
    return float(F.cosine_similarity(texts[0], texts[1], dim=0))


@given(
    rows=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2, max_size=5),
    most=st.floats(-1, 1),
)
def test_closeness_is_the_mean_excess_over_all_pairs(rows: list[list[float]], most: float) -> None:
    """The loss equals a plain loop over the pairs."""
    units = F.normalize(torch.tensor(rows, dtype=torch.float64) + 1e-3, dim=-1)
    excess = [
        max(float(units[i] @ units[j]) - most, 0.0)
        for i in range(len(units))
        for j in range(i + 1, len(units))
    ]
    assert float(closeness_loss(units, most=most)) == pytest.approx(np.mean(excess), abs=1e-9)


def test_training_lowers_the_loss() -> None:
    """The contrastive loss of a handful of pictures falls."""
    losses = _train(build(ARCHITECTURE, temporal="none", seed=1), SETTINGS)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_texts_that_pictures_do_not_tell_apart_are_kept_apart() -> None:
    """With a limit, left and right end up about as far apart as it says; without, on one point."""
    left_alone = build(ARCHITECTURE, temporal="none", seed=1)
    _train(left_alone, replace(SETTINGS, steps=60))
    kept_apart = build(ARCHITECTURE, temporal="none", seed=1)
    _train(kept_apart, replace(SETTINGS, steps=60, apart_cosine=0.5))
    assert _cosine(kept_apart, "red left", "red right") < 0.65
    assert _cosine(left_alone, "red left", "red right") > 0.8


def test_a_set_smaller_than_a_batch_is_refused() -> None:
    """There is an error with both numbers instead of a batch of repetitions."""
    with pytest.raises(ValueError, match=r"16 with 16 captions; a batch is 64"):
        _train(build(ARCHITECTURE, seed=1), replace(SETTINGS, batch_size=64))
