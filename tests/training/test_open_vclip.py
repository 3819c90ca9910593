"""Open-VCLIP's step against the same thing done the long way round."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tests.training.tiny import ARCHITECTURE
from training.interpolate import interpolate
from training.losses import classification_loss, video_logits
from training.models.network import VideoCLIP, build
from training.recipes.open_vclip import (
    FineTuned,
    OpenVCLIP,
    OpenVCLIPSettings,
    array_batches,
    fine_tune,
)

CLASSES = 3


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


def tune(**changes: Any) -> tuple[VideoCLIP, FineTuned]:
    """A short training from seed 1's weights."""
    settings = OpenVCLIPSettings(
        **{"steps": 6, "batch_size": 4, "peak_learning_rate": 1e-3, "snapshots": 3, **changes}
    )
    network = build(ARCHITECTURE, seed=1)
    frames, labels = data()
    batches = array_batches(frames, labels, batch_size=4, seed=settings.seed)
    return network, fine_tune(network, batches, classifier=classifier(), settings=settings)


def test_the_gradient_is_the_sum_of_eq_9() -> None:
    """dL/dθ at θ, plus C times the gradient at the interpolated weights, by loading them."""
    alpha, C = 0.35, 0.7
    network, original = build(ARCHITECTURE, seed=1), build(ARCHITECTURE, seed=2)
    theta = {n: t.clone() for n, t in network.state_dict().items()}
    theta_clip = {n: t.clone() for n, t in original.state_dict().items()}
    recipe = OpenVCLIP(
        network,
        classifier=classifier(),
        settings=OpenVCLIPSettings(steps=1, interpolation_coefficient=C),
        original=theta_clip,
    )
    pixels = torch.randn(3, 4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1])
    losses = recipe.gradient(pixels, labels, alpha=alpha)
    found = recipe.weights.views(recipe.weights.gradient)

    expected: dict[str, Tensor] = {}
    for factor, weights, loss in (
        (1.0, theta, losses[0]),
        (C, {n: alpha * theta_clip[n] + (1 - alpha) * theta[n] for n in theta}, losses[1]),
    ):
        network = build(ARCHITECTURE)
        network.load_state_dict(weights)
        logits = video_logits(network(pixels), classifier(), logit_scale=network.logit_scale)
        value = classification_loss(logits, labels)
        value.backward()  # type: ignore[no-untyped-call]
        assert loss is not None
        assert float(loss) == pytest.approx(float(value.detach()), rel=1e-5)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + factor * parameter.grad
    assert set(found) == set(expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)


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


def test_the_seed_decides_everything() -> None:
    """Same seed, same bits; another seed, other weights."""
    first, again, other = (tune(seed=seed)[1] for seed in (7, 7, 8))
    assert all(torch.equal(t, again.last[n]) for n, t in first.last.items())
    assert first.reports == again.reports
    assert not torch.equal(first.last["visual.proj"], other.last["visual.proj"])


def test_alpha_is_uniform_up_to_r() -> None:
    """Every drawn share of CLIP lies within 0 and R, and they spread over it."""
    recipe = OpenVCLIP(
        build(ARCHITECTURE),
        classifier=classifier(),
        settings=OpenVCLIPSettings(steps=1, interpolation_max=0.4),
    )
    drawn = [recipe.draw_alpha() for _ in range(400)]
    values = np.array(drawn, dtype=np.float64)
    assert values.min() >= 0.0
    assert values.max() <= 0.4
    assert abs(values.mean() - 0.2) < 0.03


def test_plain_fine_tuning_sees_the_same_batches() -> None:
    """C = 0 draws no α and does one pass; its first loss is that of the regularised run."""
    _, plain = tune(interpolation_coefficient=0.0)
    _, regularised = tune()
    assert plain.reports[0].alpha is None
    assert plain.reports[0].interpolated_loss is None
    assert plain.reports[0].loss == pytest.approx(regularised.reports[0].loss, rel=1e-6)


def test_it_learns() -> None:
    """The loss falls on clips that brightness tells apart."""
    _, result = tune(steps=60, peak_learning_rate=3e-3, flip=False)
    losses = [report.loss for report in result.reports]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_the_average_is_the_mean_of_the_snapshots() -> None:
    """With as many snapshots as steps, the averaged weights are the mean of all of them."""
    settings = OpenVCLIPSettings(
        steps=4, batch_size=4, peak_learning_rate=1e-3, snapshots=3, snapshot_start_share=0.5
    )
    network = build(ARCHITECTURE, seed=1)
    seen: list[dict[str, Tensor]] = []
    frames, labels = data()
    result = fine_tune(
        network,
        array_batches(frames, labels, batch_size=4, seed=0),
        classifier=classifier(),
        settings=settings,
        on_step=lambda step, report: seen.append(  # noqa: ARG005
            {n: t.detach().clone() for n, t in network.state_dict().items()}
        ),
    )
    assert result.averaged is not None
    for name, tensor in result.averaged.items():
        mean = torch.stack([state[name] for state in seen[1:]]).mean(dim=0)
        torch.testing.assert_close(tensor, mean, atol=1e-6, rtol=1e-5)


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


def test_bf16_stays_near_fp32() -> None:
    """The same training in bf16 has losses within a few percent."""
    losses = [
        np.array([r.loss for r in tune(precision=precision)[1].reports])
        for precision in ("fp32", "bf16")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_flips_mirror_whole_clips() -> None:
    """Each clip is mirrored as a whole or not at all, and some are each."""
    recipe = OpenVCLIP(
        build(ARCHITECTURE), classifier=classifier(), settings=OpenVCLIPSettings(steps=1)
    )
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 2, 4, 4, 3)))
    plain = OpenVCLIP(
        build(ARCHITECTURE),
        classifier=classifier(),
        settings=OpenVCLIPSettings(steps=1, flip=False),
    ).pixels(frames.to(torch.uint8))
    found = recipe.pixels(frames.to(torch.uint8))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(found, plain, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(found, plain, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_pixels_are_normalised_as_the_service_does() -> None:
    """The training batch equals the shared core's arithmetic."""
    from service.videoclip.manifest import Preprocessing
    from service.videoclip.preprocessing import normalize

    settings = OpenVCLIPSettings(steps=1, flip=False)
    recipe = OpenVCLIP(build(ARCHITECTURE), classifier=classifier(), settings=settings)
    frames, _ = data()
    expected = normalize(frames, Preprocessing(image_size=40, mean=settings.mean, std=settings.std))
    found = recipe.pixels(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_every_pass_sees_every_clip_once() -> None:
    """Batches reach over the end of a pass and miss nothing."""
    frames, labels = data(10)
    frames[:, 0, 0, 0, 0] = np.arange(10)
    batches = array_batches(frames, labels, batch_size=4, seed=0)
    seen = [int(clip[0, 0, 0, 0]) for _ in range(5) for clip in next(batches)[0]]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_batches_that_run_out_are_an_error() -> None:
    """Too few batches stop the training with their number."""
    frames, labels = data()
    few = [next(array_batches(frames, labels, batch_size=4, seed=0))]
    with pytest.raises(ValueError, match="after 1 of 3"):
        fine_tune(
            build(ARCHITECTURE),
            few,
            classifier=classifier(),
            settings=OpenVCLIPSettings(steps=3, batch_size=4),
        )


def test_original_weights_that_do_not_fit_are_named() -> None:
    """CLIP of another shape is refused before the first step."""
    with pytest.raises(ValueError, match=r"visual\.proj"):
        OpenVCLIP(
            build(ARCHITECTURE),
            classifier=classifier(),
            settings=OpenVCLIPSettings(steps=1),
            original={"logit_scale": torch.tensor(1.0)},
        )
