"""Learning rate, update and running mean against their plain forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.tiny import ARCHITECTURE
from training.flat_weights import FlatWeights
from training.models.network import VideoCLIP, build
from training.optimizer import AdamW, RunningMean, group_weights
from training.schedule import CosineFrom, Shape, learning_rate, snapshot_steps


def trained_names(network: VideoCLIP) -> list[str]:
    """What Open-VCLIP trains."""
    names = [n for n, _ in network.named_parameters()]
    return [n for n in names if n.startswith("visual.") or n == "logit_scale"]


def flat_adamw(
    network: VideoCLIP,
    *,
    weight_decay: float = 0.01,
    decay_all: bool = False,
    factors: dict[str, float] | None = None,
) -> AdamW:
    """The optimiser over a network's flat weights, Open-VCLIP's where not said otherwise."""
    groups = group_weights(
        network,
        dict.fromkeys(trained_names(network), 1.0) if factors is None else factors,
        weight_decay=weight_decay,
        decay_all=decay_all,
    )
    return AdamW(FlatWeights(network, groups=[group.names for group in groups]), groups)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 3.33e-8), (1, 1.68165e-6), (2, 3.33e-6), (12, 1.68165e-6), (22, 3.33e-8)],
)
def test_the_schedule_is_the_released_one(epoch: float, rate: float) -> None:
    """The released schedule's values at five of its 22 epochs."""
    assert learning_rate(epoch / 22) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.0), (2.5, 2.5e-5), (5, 5e-5), (17.5, 2.5e-5), (30, 0.0)]
)
def test_text4vis_warms_up_from_nothing_and_ends_at_nothing(epoch: float, rate: float) -> None:
    """Five epochs to 5e-5, then a cosine to 0 at the thirtieth."""
    found = learning_rate(epoch / 30, peak=5e-5, floor_share=0.0, warmup_share=5 / 30)
    assert found == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.0), (2.5, 4e-6), (4.999999, 8e-6), (5, 4.04e-6), (10, 8e-8)]
)
def test_vifi_clips_cosine_counts_from_the_start(epoch: float, rate: float) -> None:
    """After five of ten epochs of warm-up the rate falls to where the cosine already is."""
    found = learning_rate(
        epoch / 10, peak=8e-6, warmup_share=0.5, warmup_from_share=0.0, cosine_from="start"
    )
    assert found == pytest.approx(rate, rel=1e-5, abs=1e-15)


@given(progress=st.floats(0, 1))
def test_fitclips_rate_is_constant(progress: float) -> None:
    """From the first step to the last."""
    assert learning_rate(progress, peak=3e-6, shape="constant", warmup_share=0.0) == 3e-6


@given(
    progress=st.floats(0, 1),
    shape=st.sampled_from(["cosine", "constant"]),
    floor_share=st.floats(0, 1),
    warmup_share=st.floats(0, 1),
    warmup_from_share=st.none() | st.floats(0, 1),
    cosine_from=st.sampled_from(["warmup", "start"]),
)
def test_the_rate_stays_between_its_ends_and_peak(
    progress: float,
    shape: Shape,
    floor_share: float,
    warmup_share: float,
    warmup_from_share: float | None,
    cosine_from: CosineFrom,
) -> None:
    """Whatever the shape of the schedule."""
    rate = learning_rate(
        progress,
        peak=2.0,
        shape=shape,
        floor_share=floor_share,
        warmup_share=warmup_share,
        warmup_from_share=warmup_from_share,
        cosine_from=cosine_from,
    )
    least = floor_share if warmup_from_share is None else min(floor_share, warmup_from_share)
    assert 2.0 * least - 1e-9 <= rate <= 2.0 + 1e-9


def test_progress_outside_of_the_training_is_an_error() -> None:
    """A step number in place of a share is noticed."""
    with pytest.raises(ValueError, match="progress"):
        learning_rate(3.0)


def test_the_flat_update_equals_torchs_on_single_weights() -> None:
    """Same groups, decay, clipping and steps as AdamW over the parameters one by one."""
    flat, plain = build(ARCHITECTURE), build(ARCHITECTURE)
    names = trained_names(flat)
    ours = flat_adamw(flat, weight_decay=0.1)
    parameters = dict(plain.named_parameters())
    chosen = [parameters[n] for n in names]
    theirs = torch.optim.AdamW(
        [
            {"params": [p for p in chosen if p.dim() != 1], "weight_decay": 0.1},
            {"params": [p for p in chosen if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    clips = torch.randn(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for network in (flat, plain):
            loss = network(clips).square().sum() * network.logit_scale
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        theirs.step()
        theirs.zero_grad()
        assert ours.step(learning_rate=1e-2, clip_norm=1.0) == pytest.approx(float(norm), rel=1e-4)
    for name in names:
        torch.testing.assert_close(
            dict(flat.named_parameters())[name], parameters[name], atol=2e-5, rtol=1e-3
        )


@pytest.mark.parametrize("decay_all", [False, True])
def test_only_vectors_are_spared_from_decay(decay_all: bool) -> None:
    """Matrices and the logit scale decay; biases, norms and the class embedding if all do."""
    network = build(ARCHITECTURE)
    ours = flat_adamw(network, weight_decay=0.5, decay_all=decay_all)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    ours.step(learning_rate=0.1, clip_norm=None)
    for name, parameter in network.named_parameters():
        if name in ours.weights.shapes:
            changed = not torch.equal(parameter, before[name])
            zero = not before[name].any()
            assert changed == ((decay_all or parameter.dim() != 1) and not zero), name


def test_groups_have_their_own_learning_rates() -> None:
    """Each weight moves by its factor of the rate, whether it decays or not."""
    network = build(ARCHITECTURE)
    factors = {
        "visual.proj": 1.0,
        "visual.ln_post.weight": 0.1,
        "visual.conv1.weight": 0.1,
        "logit_scale": 0.0,
    }
    ours = flat_adamw(network, factors=factors, weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    ours.weights.gradient.fill_(1.0)
    ours.step(learning_rate=1e-2, clip_norm=None)
    for name, parameter in network.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().max())
        assert moved == pytest.approx(1e-2 * factors.get(name, 0.0), rel=1e-3), name


def test_moments_can_be_put_back() -> None:
    """An optimiser with the state of another one takes the same next step."""
    networks = build(ARCHITECTURE), build(ARCHITECTURE)
    first, second = (flat_adamw(network) for network in networks)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(first.weights.vector.shape, generator=generator) for _ in range(3)]
    for gradient in gradients[:2]:
        first.weights.gradient.copy_(gradient)
        first.step(learning_rate=1e-3, clip_norm=None)
    second.weights.vector.copy_(first.weights.vector)
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    for ours in (first, second):
        ours.weights.gradient.copy_(gradients[2])
        ours.step(learning_rate=1e-3, clip_norm=None)
    assert torch.equal(first.weights.vector, second.weights.vector)


def test_names_that_are_no_weights_are_an_error() -> None:
    """And so are no names at all."""
    network = build(ARCHITECTURE)
    for factors in ({"nothing": 1.0}, {}):
        with pytest.raises(ValueError, match="no"):
            flat_adamw(network, factors=factors)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    """The training stops with an error instead of going on with broken weights."""
    network = build(ARCHITECTURE)
    ours = flat_adamw(network)
    before = ours.weights.vector.clone()
    ours.weights.gradient[3] = math.inf
    with pytest.raises(FloatingPointError, match="inf"):
        ours.step(learning_rate=0.1, clip_norm=1.0)
    assert torch.equal(ours.weights.vector, before)


def test_flat_weights_are_the_networks_own() -> None:
    """The state dict does not change, writing to the vector changes the network, pack inverts."""
    network = build(ARCHITECTURE)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    weights = FlatWeights(network, groups=[trained_names(network)])
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert torch.equal(weights.pack(before), weights.vector)
    weights.vector.zero_()
    assert not network.visual.proj.any()
    with pytest.raises(ValueError, match=r"visual\.proj"):
        weights.pack({n: t for n, t in before.items() if n != "visual.proj"})
    with pytest.raises(ValueError, match="nothing"):
        FlatWeights(network, groups=[["nothing"]])


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_the_running_mean_is_the_plain_mean(values: list[float]) -> None:
    """To the rounding of fp32, for any number of terms."""
    mean = RunningMean()
    for value in values:
        mean.add(torch.full((3,), value))
    expected = sum(values) / len(values)
    assert mean.count == len(values)
    assert float(mean.mean[0]) == pytest.approx(expected, abs=2e-3)


def test_a_mean_of_nothing_is_an_error() -> None:
    """Not zero, and not None."""
    with pytest.raises(ValueError, match="nothing"):
        _ = RunningMean().mean


def test_snapshots_are_the_ends_of_epochs_2_to_22() -> None:
    """The released mean, at ten steps an epoch."""
    assert snapshot_steps(220, start_share=2 / 22, count=21) == tuple(range(20, 221, 10))


@given(steps=st.integers(1, 500), start_share=st.floats(0, 1), count=st.integers(1, 60))
def test_snapshots_end_with_the_last_step(steps: int, start_share: float, count: int) -> None:
    """They ascend, lie within the training, and the last step is one of them."""
    found = snapshot_steps(steps, start_share=start_share, count=count)
    assert found == tuple(sorted(set(found)))
    assert found[0] >= 1
    assert found[-1] == steps
    assert len(found) <= count
