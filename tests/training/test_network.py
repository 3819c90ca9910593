"""The network against open_clip, and neighbour attention against its plain restatement."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.training.tiny import ARCHITECTURE
from training.models.network import VideoCLIP, build, describe
from training.models.towers import open_clip

LAYERS = 3
DEEP: dict[str, Any] = {
    **ARCHITECTURE,
    "vision_cfg": {**ARCHITECTURE["vision_cfg"], "layers": LAYERS, "head_width": 8},
}


def plain_restatement(network: VideoCLIP, frames: Tensor) -> Tensor:
    """The authors' form: K and V of t+1, t-1 and t side by side; all tokens in all layers."""
    B, T = frames.shape[:2]
    visual = network.visual
    x = visual._embeds(frames.flatten(0, 1))  # (B*T, N, D)
    for block in visual.transformer.resblocks:
        attn = block.attn
        n, N, D = x.shape
        q, k, v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        heads, d = attn.num_heads, D // attn.num_heads

        def neighbours(y: Tensor, n: int = n, N: int = N, D: int = D) -> Tensor:
            y = y.view(B, T, N, D)
            nothing = torch.zeros(B, 1, N, D)
            after = torch.cat([y[:, 1:], nothing], dim=1)
            before = torch.cat([nothing, y[:, :-1]], dim=1)
            return torch.cat([after, before, y], dim=2).view(n, 3 * N, D)

        k, v = neighbours(k), neighbours(v)
        q = q.view(n, N, heads, d).transpose(1, 2)
        k, v = (y.view(n, 3 * N, heads, d).transpose(1, 2) for y in (k, v))
        weights = (q @ k.transpose(-1, -2) / d**0.5).softmax(-1)
        out = (weights @ v).transpose(1, 2).reshape(n, N, D)
        x = x + attn.out_proj(out)
        x = x + block.mlp(block.ln_2(x))
    pooled: Tensor = visual.ln_post(x)[:, 0] @ visual.proj
    return pooled.view(B, T, -1)


def video(batch: int, frames: int, *, seed: int = 0) -> Tensor:
    """Random clips, float32 (B, T, 3, 40, 40)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 3, 40, 40, generator=generator)


@given(batch=st.integers(1, 3), frames=st.integers(1, 9), training=st.booleans())
@settings(max_examples=12, deadline=None)
def test_neighbour_attention_equals_its_plain_form(batch: int, frames: int, training: bool) -> None:
    """Both forms, with and without gradients, give what the obvious form gives, for any T."""
    network = build(DEEP)
    clips = video(batch, frames)
    with torch.set_grad_enabled(training):
        found = network.encode_frames(clips)
    torch.testing.assert_close(found, plain_restatement(network, clips), atol=2e-6, rtol=1e-5)


def test_gradients_equal_those_of_the_plain_form() -> None:
    """The backward pass written by hand gives the gradients that autograd finds."""
    gradients = []
    for form in ("ours", "plain"):
        network = build(DEEP)
        clips = video(2, 4)
        out = network.encode_frames(clips) if form == "ours" else plain_restatement(network, clips)
        total = (out * torch.linspace(-1, 1, out.shape[-1])).square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in network.visual.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)


def test_without_neighbours_it_is_open_clip() -> None:
    """temporal="none" gives open_clip's encode_image for every frame."""
    network = build(DEEP, temporal="none")
    towers = open_clip()
    spec = describe(DEEP)
    reference = towers.CLIP(
        embed_dim=spec["embed_dim"],
        vision_cfg=towers.CLIPVisionCfg(**spec["vision_cfg"]),
        text_cfg=towers.CLIPTextCfg(**spec["text_cfg"]),
        quick_gelu=True,
    ).eval()
    reference.load_state_dict(network.state_dict(), strict=True)
    clips = video(2, 5)
    for training in (False, True):
        with torch.set_grad_enabled(training):
            found = network.encode_frames(clips)
        expected = reference.encode_image(clips.flatten(0, 1)).view(2, 5, -1)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_text_tower_is_open_clips_at_any_length(training: bool) -> None:
    """Texts cut to the longest one give what open_clip gives at full length."""
    network = build(DEEP)
    spec = describe(DEEP)
    towers = open_clip()
    reference = towers.CLIP(
        embed_dim=spec["embed_dim"],
        vision_cfg=towers.CLIPVisionCfg(**spec["vision_cfg"]),
        text_cfg=towers.CLIPTextCfg(**spec["text_cfg"]),
        quick_gelu=True,
    ).eval()
    reference.load_state_dict(network.state_dict(), strict=True)
    ids = torch.zeros(3, network.context_length, dtype=torch.int64)
    last = network.vocabulary_size - 1
    for row, length in enumerate((2, 5, 7)):
        ids[row, : length - 1] = torch.arange(1, length)
        ids[row, length - 1] = last
    with torch.set_grad_enabled(training):
        found = network.encode_text(ids[:, :7])
    torch.testing.assert_close(found, reference.encode_text(ids), atol=2e-6, rtol=1e-5)


def test_state_dict_is_open_clips() -> None:
    """Names and shapes are those of open_clip's model of the same name: nothing is added."""
    with torch.device("meta"):
        network = build("ViT-B-32-quickgelu")
        towers = open_clip()
        reference = towers.CLIP(**towers.get_model_config("ViT-B-32-quickgelu")).state_dict()
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in reference.items()
    }


def test_a_single_frame_is_not_plain_clip() -> None:
    """With T = 1 both neighbours are missing, and their 2N zero keys take part in the softmax."""
    frames = video(1, 1)
    with torch.no_grad():
        alone = build(DEEP).encode_frames(frames)
        plain = build(DEEP, temporal="none").encode_frames(frames)
    assert (alone - plain).abs().max() > 1e-2


def test_identical_frames_equal_plain_clip_away_from_the_ends() -> None:
    """Frames L to T-1-L of a still video equal plain CLIP; the others feel the missing ends."""
    T = 2 * LAYERS + 2
    still = video(1, 1).expand(1, T, -1, -1, -1)
    with torch.no_grad():
        found = build(DEEP).encode_frames(still)
        plain = build(DEEP, temporal="none").encode_frames(still)
    error = (found - plain).abs().amax(dim=(0, 2))
    inner = torch.zeros(T, dtype=torch.bool)
    inner[LAYERS : T - LAYERS] = True
    assert error[inner].max() < 5e-6
    assert error[~inner].min() > 5e-5


def test_a_video_and_its_reverse_have_the_same_embeddings_in_reverse() -> None:
    """Neighbours are a set without an order, so no weights can tell the direction of time.

    With a mean over frames a video and its reverse are then one vector: exact, whatever is trained.
    """
    network = build(ARCHITECTURE, seed=1).eval()
    frames = torch.randn(2, 8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        forward, backward = network.encode_frames(frames), network.encode_frames(frames.flip(1))
    torch.testing.assert_close(backward.flip(1), forward)
    assert not torch.allclose(forward[:, 0], forward[:, -1], atol=1e-3)


def test_a_frame_reaches_as_many_neighbours_as_there_are_layers() -> None:
    """Changing frame 7 changes the outputs of frames 7-L and later, and of no other."""
    clips = video(1, 8)
    changed = clips.clone()
    changed[:, 7] += 1.0
    network = build(DEEP)
    with torch.no_grad():
        error = (network.encode_frames(clips) - network.encode_frames(changed)).abs()
    reached = error.amax(dim=(0, 2)) > 0
    assert reached.tolist() == [t >= 7 - LAYERS for t in range(8)]


@pytest.mark.parametrize("training", [False, True])
def test_edges_work_in_bf16(training: bool) -> None:
    """Under autocast the padding takes the projection's type; results stay near those of fp32."""
    network = build(DEEP)
    clips = video(2, 3)
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.encode_frames(clips)
    with torch.no_grad():
        full = network.encode_frames(clips)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.05 * full.abs().max()


def test_edges_work_in_a_half_precision_network() -> None:
    """A network that is bf16 throughout runs: nothing is allocated in another type."""
    network = build(DEEP).bfloat16()
    with torch.no_grad():
        out = network.encode_frames(video(1, 3).bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()


def test_the_seed_decides_the_weights() -> None:
    """Equal seeds give equal weights, others do not, and the caller's generator is left alone."""
    before = torch.random.get_rng_state()
    first, again, other = (
        build(ARCHITECTURE, seed=3),
        build(ARCHITECTURE, seed=3),
        build(ARCHITECTURE),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.visual.proj, again.visual.proj)
    assert not torch.equal(first.visual.proj, other.visual.proj)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tower": 3}, "tower"),
        ({"temporal": "past"}, "temporal"),
        ({"vision_cfg": {**ARCHITECTURE["vision_cfg"], "pool_type": "avg"}}, "pool_type"),
        ({"vision_cfg": {**ARCHITECTURE["vision_cfg"], "patch_size": 7}}, "patch_size 7"),
        ({"vision_cfg": {**ARCHITECTURE["vision_cfg"], "head_width": 5}}, "head_width 5"),
        ({"embed_dim": 0}, "embed_dim"),
    ],
)
def test_an_architecture_that_cannot_be_built_says_why(
    change: dict[str, Any], message: str
) -> None:
    """Unknown keys and sizes that do not divide are named."""
    with pytest.raises(ValueError, match=message):
        build({**ARCHITECTURE, **change})


def test_an_unknown_model_name_is_named() -> None:
    """A name that open_clip does not have is repeated in the error."""
    with pytest.raises(ValueError, match="ViT-Z"):
        build("ViT-Z-1")
