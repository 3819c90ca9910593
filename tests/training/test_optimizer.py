"""Learning rate, update and running mean against their plain forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.tiny import ARCHITECTURE
from training.flat_weights import FlatWeights
from training.models.network import VideoCLIP, build
from training.optimizer import AdamW, RunningMean, learning_rate, snapshot_steps


def trained_names(network: VideoCLIP) -> list[str]:
    """What Open-VCLIP trains."""
    names = [n for n, _ in network.named_parameters()]
    return [n for n in names if n.startswith("visual.") or n == "logit_scale"]


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 3.33e-8), (1, 1.68165e-6), (2, 3.33e-6), (12, 1.68165e-6), (22, 3.33e-8)],
)
def test_the_schedule_is_the_released_one(epoch: float, rate: float) -> None:
    """The released schedule's values at five of its 22 epochs."""
    assert learning_rate(epoch / 22) == pytest.approx(rate, rel=1e-9)


@given(
    progress=st.floats(0, 1),
    floor_share=st.floats(0, 1),
    warmup_share=st.floats(0, 1),
)
def test_the_rate_stays_between_floor_and_peak(
    progress: float, floor_share: float, warmup_share: float
) -> None:
    """Whatever the shape of the schedule."""
    rate = learning_rate(progress, peak=2.0, floor_share=floor_share, warmup_share=warmup_share)
    assert 2.0 * floor_share - 1e-9 <= rate <= 2.0 + 1e-9


def test_progress_outside_of_the_training_is_an_error() -> None:
    """A step number in place of a share is noticed."""
    with pytest.raises(ValueError, match="progress"):
        learning_rate(3.0)


def test_the_flat_update_equals_torchs_on_single_weights() -> None:
    """Same groups, decay, clipping and steps as AdamW over the parameters one by one."""
    flat, plain = build(ARCHITECTURE), build(ARCHITECTURE)
    names = trained_names(flat)
    weights = FlatWeights(flat, names=names)
    ours = AdamW(weights, weight_decay=0.1)
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


def test_only_vectors_are_spared_from_decay() -> None:
    """Matrices and the logit scale decay; biases, norms and the class embedding do not."""
    network = build(ARCHITECTURE)
    weights = FlatWeights(network, names=trained_names(network))
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    AdamW(weights, weight_decay=0.5).step(learning_rate=0.1, clip_norm=None)
    for name, parameter in network.named_parameters():
        if name in weights.shapes:
            changed = not torch.equal(parameter, before[name])
            zero = not before[name].any()
            assert changed == (parameter.dim() != 1 and not zero), name


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    """The training stops with an error instead of going on with broken weights."""
    network = build(ARCHITECTURE)
    weights = FlatWeights(network, names=trained_names(network))
    before = weights.vector.clone()
    weights.gradient[3] = math.inf
    with pytest.raises(FloatingPointError, match="inf"):
        AdamW(weights).step(learning_rate=0.1, clip_norm=1.0)
    assert torch.equal(weights.vector, before)


def test_flat_weights_are_the_networks_own() -> None:
    """The state dict does not change, writing to the vector changes the network, pack inverts."""
    network = build(ARCHITECTURE)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    weights = FlatWeights(network, names=trained_names(network))
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert torch.equal(weights.pack(before), weights.vector)
    weights.vector.zero_()
    assert not network.visual.proj.any()
    with pytest.raises(ValueError, match=r"visual\.proj"):
        weights.pack({n: t for n, t in before.items() if n != "visual.proj"})
    with pytest.raises(ValueError, match="nothing"):
        FlatWeights(network, names=["nothing"])


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
