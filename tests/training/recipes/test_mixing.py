"""MixUp, CutMix and soft labels against loops over pixels and classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.losses import classification_loss, soft_label_loss
from training.mixing import Box, cutmix, mix, mixup, random_box, smooth_labels


def batch(clips: int = 4, classes: int = 3, side: int = 6) -> tuple[Tensor, Tensor]:
    """Random clips (B, 2, 3, side, side) and random distributions (B, classes)."""
    generator = torch.Generator().manual_seed(clips)
    frames = torch.randn(clips, 2, 3, side, side, generator=generator)
    return frames, torch.rand(clips, classes, generator=generator).softmax(dim=-1)


@given(st.integers(1, 7), st.floats(0.0, 1.0), st.integers(0, 6))
def test_smoothed_labels_are_the_released_ones(classes: int, smoothing: float, label: int) -> None:
    """The right class has 1 - s + s/C and the others s/C, so that a row sums to 1."""
    label %= classes
    found = smooth_labels(torch.tensor([label]), classes=classes, smoothing=smoothing)[0]
    for c in range(classes):
        expected = smoothing / classes + (1.0 - smoothing if c == label else 0.0)
        assert float(found[c]) == pytest.approx(expected, abs=1e-6)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_the_soft_label_loss_is_the_sum_over_classes(rows: int, classes: int, seed: int) -> None:
    """Minus the target-weighted logarithms of the softmax, averaged over the rows."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 5
    targets = rng.dirichlet(np.ones(classes), size=rows)
    total = 0.0
    for r in range(rows):
        normaliser = math.log(sum(math.exp(x) for x in logits[r]))
        for c in range(classes):
            total -= targets[r, c] * (logits[r, c] - normaliser)
    found = soft_label_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(found) == pytest.approx(total / rows, rel=1e-5, abs=1e-6)


def test_hard_targets_give_the_ordinary_loss() -> None:
    """With all weight on one class the soft loss is cross-entropy."""
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    targets = smooth_labels(labels, classes=3, smoothing=0.0)
    torch.testing.assert_close(
        soft_label_loss(logits, targets), classification_loss(logits, labels)
    )


def test_mixup_blends_every_pixel_and_every_target() -> None:
    """Clip i is share times itself plus the rest of its partner; so is its target."""
    frames, targets = batch()
    partners, share = torch.tensor([2, 0, 3, 1]), 0.3
    mixed, blended = mixup(frames, targets, partners=partners, share=share)
    for i, j in enumerate(partners.tolist()):
        expected = share * frames[i].numpy() + (1 - share) * frames[j].numpy()
        np.testing.assert_allclose(mixed[i].numpy(), expected, atol=1e-6)
        label = share * targets[i].numpy() + (1 - share) * targets[j].numpy()
        np.testing.assert_allclose(blended[i].numpy(), label, atol=1e-6)


def test_cutmix_replaces_one_box_in_every_frame() -> None:
    """Pixels inside the box are the partner's, the others stay; the target counts the pixels."""
    frames, targets = batch()
    before = frames.clone()
    partners, box = torch.tensor([1, 2, 3, 0]), Box(top=1, bottom=4, left=2, right=6)
    mixed, blended = cutmix(frames, targets, partners=partners, box=box)
    for i, j in enumerate(partners.tolist()):
        for y in range(6):
            for x in range(6):
                origin = j if 1 <= y < 4 and 2 <= x < 6 else i
                assert torch.equal(mixed[i, :, :, y, x], before[origin, :, :, y, x])
        kept = 1 - 12 / 36
        label = kept * targets[i].numpy() + (1 - kept) * targets[j].numpy()
        np.testing.assert_allclose(blended[i].numpy(), label, atol=1e-6)
    assert torch.equal(frames, before)


@given(st.floats(0.0, 1.0), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_boxes_stay_in_the_picture(share: float, height: int, width: int, seed: int) -> None:
    """A box lies within the picture and is never larger than the share that is given away."""
    box = random_box(np.random.default_rng(seed), share=share, height=height, width=width)
    assert 0 <= box.top <= box.bottom <= height
    assert 0 <= box.left <= box.right <= width
    assert box.area <= (1 - share) * height * width + 1e-6


@given(st.integers(1, 6), st.integers(0, 1000))
def test_mixed_targets_stay_distributions(clips: int, seed: int) -> None:
    """Whatever is drawn, targets are not negative and sum to 1."""
    frames, targets = batch(clips)
    _, mixed = mix(frames, targets, np.random.default_rng(seed), mixup_alpha=0.8, cutmix_alpha=1.0)
    assert float(mixed.min()) >= 0.0
    torch.testing.assert_close(mixed.sum(dim=-1), torch.ones(clips))


def test_half_of_the_batches_are_cut() -> None:
    """With both on, MixUp and CutMix are drawn about equally often, never neither."""
    frames, targets = torch.eye(2).view(2, 1, 1, 2, 1).expand(2, 1, 3, 2, 40), torch.eye(2)
    rng = np.random.default_rng(0)
    cut = 0
    for _ in range(300):
        mixed, _ = mix(frames, targets, rng, mixup_alpha=0.8, cutmix_alpha=1.0)
        # A cut batch holds only pixels that were there before: zeros and ones.
        cut += bool(((mixed == 0) | (mixed == 1)).all())
    # A batch whose order did not change looks cut, too: half of the blended ones.
    assert 300 * 0.68 < cut < 300 * 0.82


def test_the_seed_decides_the_mixture() -> None:
    """The same generator gives the same batch, bit for bit; another seed another one."""
    frames, targets = batch(6)
    draws = [
        mix(frames, targets, np.random.default_rng(seed), mixup_alpha=0.8, cutmix_alpha=1.0)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])


@pytest.mark.parametrize(("mixup_alpha", "cutmix_alpha"), [(0.8, 0.0), (0.0, 1.0)])
def test_one_kind_alone(mixup_alpha: float, cutmix_alpha: float) -> None:
    """An α of 0 turns its kind off; the other is always used."""
    frames, targets = batch(8)
    for seed in range(20):
        mixed, _ = mix(
            frames,
            targets,
            np.random.default_rng(seed),
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
        )
        own = (mixed.unsqueeze(1) == frames.unsqueeze(0)).any(dim=1)
        assert bool(own.all()) == (mixup_alpha == 0.0)


def test_nothing_to_mix_leaves_the_batch() -> None:
    """A single clip, and both α at 0, stay what they were."""
    rng = np.random.default_rng(0)
    for clips, alpha in ((1, 1.0), (4, 0.0)):
        frames, targets = batch(clips)
        mixed, blended = mix(frames, targets, rng, mixup_alpha=alpha, cutmix_alpha=alpha)
        assert torch.equal(mixed, frames)
        assert torch.equal(blended, targets)
