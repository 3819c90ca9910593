"""Text4Vis's temporal heads against their plain restatement."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.plain import plain_frames
from tests.training.tiny import SYSTEMS, system, unlike
from training.errors import Refusal
from training.models.network import VideoCLIP, build, describe

HEADS = ("t-trans", "token-t1d", "t1d")


def video(batch: int, frames: int, *, seed: int = 0) -> Tensor:
    """Random clips, float32 (B, T, 3, 40, 40)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 3, 40, 40, generator=generator)


@given(
    name=st.sampled_from(sorted(SYSTEMS)),
    batch=st.integers(1, 3),
    frames=st.integers(1, 9),
    training=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_every_system_equals_its_plain_form(
    name: str, batch: int, frames: int, training: bool
) -> None:
    """Heads with plain and with neighbour attention, for any number of frames."""
    network = unlike(build(system(name)))
    clips = video(batch, frames)
    with torch.set_grad_enabled(training):
        found = network.encode_frames(clips)
    torch.testing.assert_close(found, plain_frames(network, clips), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["t-trans", "token-t1d", "t1d", "everything"])
def test_gradients_equal_those_of_the_plain_form(name: str) -> None:
    """Of the head and of every weight before it."""
    gradients: list[dict[str, Any]] = []
    for form in ("ours", "plain"):
        network = unlike(build(system(name)))
        clips = video(2, 4)
        out = network.encode_frames(clips) if form == "ours" else plain_frames(network, clips)
        total = (out * torch.linspace(-1, 1, out.shape[-1])).square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in network.visual.named_parameters()})
    for parameter, expected in gradients[1].items():
        if expected is None:  # positions beyond the clip's frames have a gradient of zeros
            raise AssertionError(parameter)
        scale = float(expected.abs().max())
        found = gradients[0][parameter]
        assert found is not None, parameter
        torch.testing.assert_close(found, expected, atol=2e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in SYSTEMS if n != "frames"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    """Blocks that are run again in the backward pass give the same numbers."""
    gradients = []
    for checkpointing in (False, True):
        network = unlike(build(system(name)))
        network.gradient_checkpointing = checkpointing
        text = network.encode_text(torch.tensor([[514, 5, 6, 516], [514, 7, 516, 0]]))
        total = network.encode_frames(video(2, 3)).square().sum() + text.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for parameter, gradient in gradients[0].items():
        found = gradients[1][parameter]
        assert (gradient is None) == (found is None), parameter
        assert gradient is None or found is None or torch.equal(gradient, found), parameter


class _Step(torch.nn.Module):
    """Forward and backward in one call, as the training loop runs them."""

    def __init__(self, network: VideoCLIP) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> None:
        self.network.encode_frames(clips).square().sum().backward()  # type: ignore[no-untyped-call]


def test_checkpointing_sees_the_weights_of_the_call() -> None:
    """At weights that are not the network's own, forward and backward use those."""
    network, other = (
        unlike(build(system("everything"))),
        unlike(build(system("everything"), seed=5)),
    )
    weights = {n: p.detach().clone().requires_grad_() for n, p in other.named_parameters()}
    clips = video(1, 3)
    _Step(other)(clips)
    network.gradient_checkpointing = True
    step = _Step(network)
    torch.func.functional_call(step, {f"network.{n}": w for n, w in weights.items()}, (clips,))
    for name, parameter in other.visual.named_parameters():
        found = weights[f"visual.{name}"].grad
        assert found is not None, name
        torch.testing.assert_close(found, parameter.grad)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_checkpointing_keeps_less() -> None:
    """What autograd keeps for the backward pass is a fraction of what it keeps without."""
    kept = []
    deep = {**system("neighbour")["vision_cfg"], "layers": 12}
    for checkpointing in (False, True):
        network = build({**system("neighbour"), "vision_cfg": deep})
        network.gradient_checkpointing = checkpointing
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network.encode_frames(video(2, 8))
        kept.append(sum(sizes))
    assert kept[1] < 0.25 * kept[0]


def test_token_t1d_begins_as_a_shift() -> None:
    """The first quarter of channels reads the next frame, the second the one before."""
    convolution = build(system("token-t1d")).visual.transformer.resblocks[0].control_point
    tokens = torch.randn(2, 5, 4, 32)
    with torch.no_grad():
        out = convolution(tokens)
    nothing = torch.zeros(2, 1, 8)
    first = tokens[:, :, 0]
    assert torch.equal(out[:, :, 0, :8], torch.cat([first[:, 1:, :8], nothing], dim=1))
    assert torch.equal(out[:, :, 0, 8:16], torch.cat([nothing, first[:, :-1, 8:16]], dim=1))
    assert torch.equal(out[:, :, 0, 16:], first[:, :, 16:])
    assert torch.equal(out[:, :, 1:], tokens[:, :, 1:])


def test_t1d_is_in_the_later_half_of_the_blocks() -> None:
    """Of three blocks the last two; there, each token's channels are shifted as TokenT1D's are."""
    blocks = build(system("t1d")).visual.transformer.resblocks
    assert [hasattr(block, "control_point") for block in blocks] == [False, True, True]
    token = build(system("token-t1d")).visual.transformer.resblocks[0].control_point
    tokens = torch.randn(2, 5, 4, 32)
    with torch.no_grad():
        out = blocks[1].control_point(tokens)
        for i in range(4):
            assert torch.equal(out[:, :, i], token(tokens[:, :, i : i + 1])[:, :, 0])


def test_t_trans_begins_as_the_authors_do() -> None:
    """Matrices and positions are N(0, 0.02), biases 0, projections into attention uniform."""
    head = build({**system("t-trans"), "embed_dim": 128}).visual.temporal_head
    block = head.transformer.resblocks[5]
    assert len(head.transformer.resblocks) == 6
    assert head.frame_position_embeddings.weight.shape == (77, 128)
    for weight in (
        head.frame_position_embeddings.weight,
        block.attn.out_proj.weight,
        block.mlp.c_fc.weight,
        block.mlp.c_proj.weight,
    ):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    bound = (6 / (4 * 128)) ** 0.5
    assert float(block.attn.in_proj_weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    for bias in (block.attn.in_proj_bias, block.attn.out_proj.bias, block.mlp.c_fc.bias):
        assert not bias.detach().any()
    assert block.ln_1.eps == block.ln_2.eps == 1e-12


def test_heads_have_a_head_for_every_64_of_the_text_towers_width() -> None:
    """8 for the B models and 12 for L, and one for anything smaller than 64."""
    for name, heads in (("ViT-B-16-quickgelu", 8), ("ViT-L-14-quickgelu", 12)):
        with torch.device("meta"):
            network = build({**describe(name), "temporal_head": "t-trans"})
        block = network.visual.temporal_head.transformer.resblocks[0]
        assert block.attn.num_heads == heads
    assert (
        build(system("t-trans")).visual.temporal_head.transformer.resblocks[0].attn.num_heads == 1
    )


@pytest.mark.parametrize("head", HEADS)
def test_clips_weights_keep_names_and_values(head: str) -> None:
    """What a head adds is told by its name; the rest is what it would be without."""
    plain = build(system("frames")).state_dict()
    state = build(system(head)).state_dict()
    for name, tensor in state.items():
        if name in plain:
            assert torch.equal(tensor, plain[name]), name
        else:
            assert name.startswith("visual.")
            assert "temporal_head." in name or name.endswith("control_point.conv.weight")
    assert set(plain) < set(state)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("training", [False, True])
def test_heads_work_in_bf16(head: str, training: bool) -> None:
    """Under autocast, and with a network that is bf16 throughout."""
    network = unlike(build(system(head)))
    clips = video(2, 3)
    with torch.no_grad():
        full = network.encode_frames(clips)
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.encode_frames(clips)
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    with torch.no_grad():
        assert network.bfloat16().encode_frames(clips.bfloat16()).dtype == torch.bfloat16


def test_too_many_frames_are_refused() -> None:
    """T-Trans has 77 positions."""
    network = build(system("t-trans"))
    with torch.no_grad():
        assert network.encode_frames(video(1, 77)).shape == (1, 77, 16)
        with pytest.raises(Refusal, match="t-trans: 78 frames, but it has positions for 77"):
            network.encode_frames(video(1, 78))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"temporal_head": "tap"},
            r"temporal_head: 'tap' is none of none, t-trans, token-t1d, t1d",
        ),
        (
            {"temporal_head": "t-trans", "embed_dim": 15}
            | {"text_cfg": {"width": 128, "heads": 2, "layers": 1, "vocab_size": 600}},
            r"embed_dim 15 is not a multiple of the heads of t-trans, 2",
        ),
        (
            {"temporal_head": "token-t1d"}
            | {"vision_cfg": {"image_size": 40, "patch_size": 20, "width": 30, "head_width": 15}},
            r"vision width 30 is not a multiple of the groups of token-t1d, 4",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    """The line names the key, the value and what it must divide by."""
    with pytest.raises(ValueError, match=message):
        build({**system("frames"), **change})
