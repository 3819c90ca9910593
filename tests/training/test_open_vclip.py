"""Open-VCLIP's recipe: what it trains, by which loss, and the training it was published with."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import normalize
from tests.training.tiny import ARCHITECTURE
from training.errors import Refusal
from training.fine_tuning import FineTuned, fine_tune
from training.interpolate import interpolate
from training.losses import video_logits
from training.models.network import VideoCLIP, build
from training.pixels import Pixels
from training.recipe import Batch
from training.recipes import open_vclip
from training.recipes.open_vclip import OpenVCLIP, OpenVCLIPSettings
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

CLASSES = 3
PREPROCESSING = Preprocessing(
    image_size=40,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def data(clips: int = 12) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Clips whose brightness tells their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(clips) % CLASSES
    noise = rng.integers(0, 60, (clips, 4, 40, 40, 3))
    return (noise + 90 * labels[:, None, None, None, None]).astype(np.uint8), labels


def classifier() -> Tensor:
    """Random unit rows (C, D)."""
    rows = torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(5))
    return F.normalize(rows, dim=-1)


def tune(*, steps: int = 6, seed: int = 0, **changes: Any) -> tuple[VideoCLIP, FineTuned]:
    """A short training from seed 1's weights."""
    regularisation = {"interpolation_coefficient": 0.5, "snapshots": 3, **changes}
    network = build(ARCHITECTURE, seed=1)
    step = Step(
        OpenVCLIP(network, classifier=classifier()),
        steps=steps,
        optimisation=OptimisationConfig(steps=steps, batch_size=4, peak_learning_rate=1e-3),
        regularisation=RegularisationConfig(**regularisation),
        seed=seed,
    )
    pixels = Pixels(PREPROCESSING)
    frames, labels = (torch.from_numpy(array) for array in data())
    rng = np.random.default_rng(seed)
    drawn = (rng.permutation(len(labels))[:4] for _ in range(steps))
    return network, fine_tune(
        step, (Batch(frames=pixels(frames[rows]), labels=labels[rows]) for rows in drawn)
    )


def test_logits_are_the_mean_of_frame_logits() -> None:
    """Averaging unit vectors first gives the mean over frames of the cosine logits."""
    frames = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(1.7)
    per_frame = scale.exp() * F.normalize(frames, dim=-1) @ classifier().T
    found = video_logits(frames, classifier(), logit_scale=scale)
    torch.testing.assert_close(found, per_frame.mean(dim=1))


def test_the_text_tower_is_frozen_and_the_logit_scale_trained() -> None:
    """After training, text weights are the same bits; visual weights and the scale are not."""
    before = build(ARCHITECTURE, seed=1).state_dict()
    _, result = tune()
    for name, tensor in result.last.items():
        trained = name.startswith("visual.") or name == "logit_scale"
        if not trained:
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(result.last["logit_scale"], before["logit_scale"])
    assert not torch.equal(result.last["visual.proj"], before["visual.proj"])


def test_the_classifier_is_clips_own_words() -> None:
    """The recipe encodes every class in every template by the network's text tower."""

    def encode(texts: list[str]) -> Tensor:
        return torch.tensor([[2, len(text) % 50 + 3, 515] for text in texts])

    network = build(ARCHITECTURE, seed=1)
    made = open_vclip.recipe(
        network,
        settings=OpenVCLIPSettings(),
        classes=("dog", "horse"),
        encode=encode,
        templates=("a {}", "the {}."),
        original={},
        seed=0,
    )
    with torch.no_grad():
        for row, name in zip(made.classifier, ("dog", "horse"), strict=True):
            texts = network.encode_text(encode([f"a {name}", f"the {name}."]))
            mean = F.normalize(texts, dim=-1).mean(dim=0)
            torch.testing.assert_close(row, F.normalize(mean, dim=-1))


def test_videos_without_classes_are_refused() -> None:
    """There is nothing to learn from."""
    with pytest.raises(Refusal, match="no classes"):
        OpenVCLIP(build(ARCHITECTURE), classifier=classifier())(
            Batch(frames=torch.zeros(1, 2, 3, 40, 40))
        )


def test_frames_see_their_neighbours_unless_told_otherwise() -> None:
    """The settings choose the attention of the network that the loop builds."""
    assert open_vclip.architecture(OpenVCLIPSettings())["temporal"] == "neighbour"
    assert open_vclip.architecture(OpenVCLIPSettings(temporal="none"))["temporal"] == "none"


def test_the_seed_decides_everything() -> None:
    """Same seed, same bits; another seed, other weights."""
    first, again, other = (tune(seed=seed)[1] for seed in (7, 7, 8))
    assert all(torch.equal(t, again.last[n]) for n, t in first.last.items())
    assert first.reports == again.reports
    assert not torch.equal(first.last["visual.proj"], other.last["visual.proj"])


def test_plain_fine_tuning_sees_the_same_batches() -> None:
    """C = 0 draws no α and does one pass; its first loss is that of the regularised run."""
    _, plain = tune(interpolation_coefficient=0.0)
    _, regularised = tune()
    assert plain.reports[0].alpha is None
    assert plain.reports[0].interpolated_loss is None
    assert plain.reports[0].loss == pytest.approx(regularised.reports[0].loss, rel=1e-6)


def test_it_learns() -> None:
    """The loss falls on clips that brightness tells apart."""
    _, result = tune(steps=60)
    losses = [report.loss for report in result.reports]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_averaging_and_interpolating_commute() -> None:
    """Eq. 10: the mean of interpolated weights is the interpolation of their mean."""
    clip = build(ARCHITECTURE, seed=1).state_dict()
    states = [build(ARCHITECTURE, seed=seed).state_dict() for seed in (2, 3, 4)]

    def mean(dicts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {n: torch.stack([d[n] for d in dicts]).mean(dim=0) for n in dicts[0]}

    one = interpolate(clip, mean(states), clip_weight=0.3)
    other = mean([interpolate(clip, state, clip_weight=0.3) for state in states])
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-5)


def test_without_averaging_there_is_no_mean() -> None:
    """Only the last weights come out."""
    assert tune(snapshots=0)[1].averaged is None


def test_pixels_are_normalised_as_the_service_does() -> None:
    """The training batch equals the shared core's arithmetic."""
    frames, _ = data()
    expected = normalize(frames, PREPROCESSING)
    found = Pixels(PREPROCESSING)(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_batches_that_run_out_are_an_error() -> None:
    """Too few batches stop the training with their number."""
    step = Step(
        OpenVCLIP(build(ARCHITECTURE), classifier=classifier()),
        steps=3,
        optimisation=OptimisationConfig(steps=3, batch_size=4),
        regularisation=RegularisationConfig(),
        seed=0,
    )
    few = [Batch(frames=torch.zeros(4, 2, 3, 40, 40), labels=torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(ValueError, match="after 1 of 3"):
        fine_tune(step, few)
