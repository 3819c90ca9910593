"""One step of training against the same thing done the long way round."""

import copy
import gc
import math
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.tiny import ARCHITECTURE
from training.config import ConfigError
from training.errors import Refusal
from training.losses import classification_loss, video_logits
from training.models.network import build
from training.precision import LossScale
from training.recipe import Batch, Recipe
from training.recipes.open_vclip import OpenVCLIP
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

CLASSES = 3


def classifier() -> Tensor:
    """Random unit rows (C, D)."""
    rows = torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(5))
    return F.normalize(rows, dim=-1)


def batch(rows: int = 4, *, seed: int = 0) -> Batch:
    """Random clips with labels."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(rows, 4, 3, 40, 40, generator=generator)
    return Batch(frames=frames, labels=torch.arange(rows) % CLASSES)


def step(
    *,
    recipe: Recipe | None = None,
    optimisation: dict[str, Any] | None = None,
    regularisation: dict[str, Any] | None = None,
    seed: int = 0,
    original: dict[str, Tensor] | None = None,
) -> Step:
    """Open-VCLIP from seed 1's weights, ten steps."""
    if recipe is None:
        recipe = OpenVCLIP(build(ARCHITECTURE, seed=1), classifier=classifier())
    return Step(
        recipe,
        steps=10,
        optimisation=OptimisationConfig(
            **{"steps": 10, "peak_learning_rate": 1e-3, **(optimisation or {})}
        ),
        regularisation=RegularisationConfig(**(regularisation or {})),
        seed=seed,
        original=original,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_the_sum_of_eq_9(checkpointing: bool) -> None:
    """dL/dθ at θ, plus C times the gradient at the interpolated weights, by loading them.

    Also when blocks are computed again in the backward pass: with the same weights as forward.
    """
    alpha, C = 0.35, 0.7
    network, original = build(ARCHITECTURE, seed=1), build(ARCHITECTURE, seed=2)
    theta = {n: t.clone() for n, t in network.state_dict().items()}
    theta_clip = {n: t.clone() for n, t in original.state_dict().items()}
    ours = step(
        recipe=OpenVCLIP(network, classifier=classifier()),
        optimisation={"gradient_checkpointing": checkpointing},
        regularisation={"interpolation_coefficient": C},
        original=theta_clip,
    )
    data = batch(3)
    assert data.labels is not None
    parts, mixed_loss = ours.gradient(data, alpha=alpha)
    assert mixed_loss is not None
    found = {name.removeprefix("network."): g for name, g in ours.gradients().items()}

    expected: dict[str, Tensor] = {}
    for factor, weights, loss in (
        (1.0, theta, parts["loss"]),
        (C, {n: alpha * theta_clip[n] + (1 - alpha) * theta[n] for n in theta}, mixed_loss),
    ):
        plain = build(ARCHITECTURE)
        plain.load_state_dict(weights)
        logits = video_logits(
            plain.encode_frames(data.frames), classifier(), logit_scale=plain.logit_scale
        )
        value = classification_loss(logits, data.labels)
        value.backward()  # type: ignore[no-untyped-call]
        assert float(loss) == pytest.approx(float(value.detach()), rel=1e-5)
        for name, parameter in plain.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + factor * parameter.grad
    assert set(found) == set(expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Two parts one after another, with the same α, move the weights as the whole batch does."""
    regularisation = {"interpolation_coefficient": 0.5}
    whole = step(regularisation=regularisation)
    parts = step(regularisation=regularisation, optimisation={"accumulate": 2})
    for number in range(3):
        one, other = whole(number, batch(seed=number)), parts(number, batch(seed=number))
        assert one.alpha == other.alpha
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.interpolated_loss == pytest.approx(other.interpolated_loss, rel=1e-5)
    torch.testing.assert_close(whole.weights.vector, parts.weights.vector, atol=1e-5, rtol=0)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch's allocator holds during some work, beside what it held before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    kineto = profile.profiler.kineto_results
    taken = sorted((e.start_ns(), e.nbytes()) for e in kineto.events() if e.name() == "[memory]")
    assert taken
    return int(np.cumsum([size for _, size in taken]).max())


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [0.5, 0.0])
def test_interpolation_costs_one_copy_of_the_weights(coefficient: float) -> None:
    """Of all tensors alive after a step, and at its peak; CLIP's weights stay the caller's own.

    Without the interpolated pass, and with the penalty instead, there is no copy at all.
    """
    # A process of its own: tensors of other tests would come and go meanwhile.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_compare_costs, coefficient).result()


def _compare_costs(coefficient: float) -> None:
    original = build(ARCHITECTURE, seed=2).state_dict()
    before = {name: tensor.clone() for name, tensor in original.items()}
    other = {"interpolation_coefficient": coefficient, "l2_to_clip": 0.1}
    held, peaks, steps = [], [], []
    for regularisation in ({}, other):
        held.append(-bytes_alive())
        steps.append(step(regularisation=regularisation, original=original))
        steps[-1](0, batch(1))  # makes the moments
        held[-1] += bytes_alive()
    vector = steps[1].weights.vector
    copies = vector.numel() * vector.element_size() if coefficient else 0
    assert held[1] - held[0] == copies
    assert sum(steps[1].state_bytes().values()) == sum(steps[0].state_bytes().values()) + copies

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a step copies no state dict")

    with pytest.MonkeyPatch.context() as patch:
        copying = ((copy, "deepcopy"), (nn.Module, "state_dict"), (Tensor, "__deepcopy__"))
        for holder, name in copying:
            patch.setattr(holder, name, refused)
        for own in steps:
            peaks.append(peak_bytes(lambda own=own: own(1, batch(1, seed=1))))  # type: ignore[misc]
    # Both passes are through one after the other; a list of copies would be another vector.
    assert peaks[1] - peaks[0] < vector.numel() * vector.element_size() / 4
    assert all(torch.equal(original[name], tensor) for name, tensor in before.items())


def bytes_alive() -> int:
    """Of all tensors' memory in this process, what is shared counted once."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some module attributes warn when they are looked at
        found = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values()
    )


def test_the_penalty_pulls_to_clip() -> None:
    """Its gradient is c·(θ - CLIP), and its value c/2 times the squared distance."""
    original = build(ARCHITECTURE, seed=2).state_dict()
    plain, pulled = (
        step(
            regularisation={"l2_to_clip": c},
            original=original,
            optimisation={"weight_decay": 0.0, "clip_norm": 0.0},
        )
        for c in (0.0, 0.25)
    )
    before = {n: p.detach().clone() for n, p in pulled.recipe.network.named_parameters()}
    expected = plain.gradient(batch(), alpha=None), plain.gradients()
    found = {}
    update = pulled.optimizer.step

    def look(**arguments: Any) -> float:
        found.update({n: g.clone() for n, g in pulled.gradients().items()})
        return update(**arguments)

    pulled.optimizer.step = look  # type: ignore[method-assign]
    report = pulled(0, batch())
    distance = 0.0
    for name, gradient in expected[1].items():
        inner = name.removeprefix("network.")
        difference = before[inner] - original[inner]
        distance += float(difference.square().sum())
        torch.testing.assert_close(found[name], gradient + 0.25 * difference, atol=1e-5, rtol=1e-4)
    assert report.parts["l2_to_clip"] == pytest.approx(0.125 * distance, rel=1e-4)


def test_original_weights_that_do_not_fit_are_named() -> None:
    """CLIP of another shape is refused before the first step, where it is needed at all."""
    original = {"logit_scale": torch.tensor(1.0)}
    step(original=original)
    with pytest.raises(ConfigError, match=r"visual\.proj"):
        step(original=original, regularisation={"l2_to_clip": 0.1})


def test_only_the_recipes_weights_change_by_their_factors() -> None:
    """Frozen weights stay the same bits; a factor of the learning rate scales a weight's step."""

    class Halved(OpenVCLIP):
        def trained(self) -> dict[str, float]:
            return {"network.visual.proj": 1.0, "network.visual.ln_post.weight": 0.5}

    network = build(ARCHITECTURE, seed=1)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    halved = step(
        recipe=Halved(network, classifier=classifier()),
        optimisation={"weight_decay": 0.0, "warmup_share": 0.0},
    )
    halved(0, batch())
    for name, tensor in network.state_dict().items():
        moved = float((tensor - before[name]).abs().max())
        # AdamW's first step has the size of the learning rate.
        expected = {"visual.proj": 1e-3, "visual.ln_post.weight": 5e-4}.get(name, 0.0)
        assert moved == pytest.approx(expected, rel=1e-2), name


def test_random_numbers_follow_from_seed_and_step() -> None:
    """A recipe draws the same for the same step, whatever was drawn before; α lies in (0, R)."""
    drawn: list[float] = []

    class Drawing(OpenVCLIP):
        def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
            drawn.append(float(rng.random()))
            return batch

    def numbers(steps: tuple[int, ...], seed: int) -> list[float]:
        drawn.clear()
        recipe = Drawing(build(ARCHITECTURE, seed=1), classifier=classifier())
        own = step(
            recipe=recipe,
            seed=seed,
            regularisation={"interpolation_coefficient": 0.5, "interpolation_max": 0.4},
        )
        alphas = [own(number, batch()).alpha for number in steps]
        assert all(alpha is not None and 0.0 <= alpha <= 0.4 for alpha in alphas)
        return drawn + [alpha for alpha in alphas if alpha is not None]

    whole, late = numbers((0, 1, 2), 7), numbers((2,), 7)
    assert late == [whole[2], whole[5]]
    assert len(set(whole)) == 6
    assert set(numbers((0, 1, 2), 8)).isdisjoint(whole)


def test_the_average_is_the_mean_of_the_snapshots() -> None:
    """With snapshots after the last six of ten steps, the mean is theirs."""
    own = step(regularisation={"snapshots": 6, "snapshot_start_share": 0.5})
    assert own.snapshots == {5, 6, 7, 8, 9, 10}
    seen = []
    for number in range(10):
        own(number, batch(seed=number))
        seen.append(own.weights.vector.clone())
    torch.testing.assert_close(own.mean.mean, torch.stack(seen[4:]).mean(dim=0))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near_fp32(precision: str) -> None:
    """The same steps in bf16 and fp16 have losses within a few percent, on a CPU as well."""
    losses = {}
    for name in ("fp32", precision):
        own = step(
            optimisation={"precision": name, "peak_learning_rate": 1e-4},
            regularisation={"interpolation_coefficient": 0.5},
        )
        if own.scale.used:
            own.scale.factor = 256.0  # no step is left out
        reports = [own(number, batch(seed=number)) for number in range(4)]
        assert all(math.isfinite(report.gradient_norm) for report in reports)
        losses[name] = [report.loss for report in reports]
    np.testing.assert_allclose(losses["fp32"], losses[precision], rtol=0.06)


def test_an_overflow_in_fp16_costs_one_step_and_no_weights() -> None:
    """The scale halves, weights and moments stay, and the next step goes on; bf16 has no scale."""
    own = step(optimisation={"precision": "fp16"})
    own.scale.factor = 2.0**127
    before = own.weights.vector.clone()
    report = own(0, batch())
    assert math.isinf(report.gradient_norm)
    assert torch.equal(own.weights.vector, before)
    assert own.scale.factor == 2.0**126
    own.scale.factor = LossScale.FIRST
    # A random network has large gradients: it takes a few halvings, as it would in a training.
    norms = [own(number, batch()).gradient_norm for number in range(1, 9)]
    assert math.isfinite(norms[-1])
    assert not torch.equal(own.weights.vector, before)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_no_scale_can_mend_is_an_error(precision: str) -> None:
    """Weights that are not finite stop the training, in fp16 when the scale is at its least."""
    own = step(optimisation={"precision": precision})
    own.scale.factor = LossScale.LEAST if precision == "fp16" else 1.0
    own.weights.vector[0] = math.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        own(0, batch())


def test_a_scale_that_holds_grows() -> None:
    """After enough steps without overflow it doubles."""
    scale = LossScale("fp16")
    for _ in range(LossScale.PATIENCE):
        scale.after_update()
    assert scale.factor == 2 * LossScale.FIRST
    assert LossScale("bf16").factor == 1.0


def test_parts_of_a_batch_have_the_rows_of_everything() -> None:
    """Captions, marks and the second source are cut like the clips."""
    both = replace(
        batch(4),
        captions=torch.arange(8).view(4, 2),
        captioned=torch.tensor([True, False, True, True]),
        unlabelled=batch(4, seed=1),
    )
    part = both.part(slice(1, 3))
    assert part.captions is not None
    assert part.unlabelled is not None
    assert part.captions.tolist() == [[2, 3], [4, 5]]
    assert torch.equal(part.unlabelled.frames, batch(4, seed=1).frames[1:3])
    assert part.soft_labels is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "one of steps and epochs"),
        ({"steps": 1, "epochs": 1.0}, "one of steps and epochs"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 1, "batch_size": 0}, "batch_size = 0"),
        ({"steps": 1, "floor_share": 1.5}, "floor_share = 1.5"),
        ({"steps": 1, "clip_norm": -1.0}, "clip_norm = -1.0"),
        ({"steps": 1, "betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys: dict[str, Any], message: str) -> None:
    """With the key and the value."""
    with pytest.raises(Refusal, match=message):
        OptimisationConfig(**keys)


def test_epochs_become_steps() -> None:
    """Of the list's length; and a batch must divide among processes and parts."""
    assert OptimisationConfig(epochs=22, batch_size=64).steps_for(240_000) == 82_500
    assert OptimisationConfig(epochs=0.1, batch_size=64).steps_for(10) == 1
    assert OptimisationConfig(steps=1, batch_size=64, accumulate=2).rows_per_part(8) == 4
    with pytest.raises(ConfigError, match="batch_size = 64"):
        OptimisationConfig(steps=1, batch_size=64).rows_per_part(3)
