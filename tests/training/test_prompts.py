"""ViFi-CLIP's prompts against their plain restatement: where they are, and what they move."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.plain import plain_frames, plain_texts
from tests.training.tiny import ARCHITECTURE, system, unlike
from training.models.network import VideoCLIP, build

CONTEXT = ARCHITECTURE["text_cfg"]["context_length"]
END = ARCHITECTURE["text_cfg"]["vocab_size"] - 1
START = END - 1


def prompted(*, temporal: str = "none", **prompts: int) -> VideoCLIP:
    """A network of three visual and two text layers with these prompts."""
    return unlike(build({**system("frames"), "temporal": temporal, "prompts": prompts}))


def padded(texts: list[list[int]]) -> Tensor:
    """Token ids as the tokenizer gives them: cut to the longest text, zeros behind the others."""
    ids = torch.zeros(len(texts), max(len(text) for text in texts), dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    return ids


@given(
    number=st.integers(1, 5),
    depth=st.integers(1, 3),
    temporal=st.sampled_from(["none", "neighbour"]),
    batch=st.integers(1, 2),
    frames=st.integers(1, 4),
    training=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_vision_prompts_equal_their_plain_form(
    number: int, depth: int, temporal: str, batch: int, frames: int, training: bool
) -> None:
    """At the end of the tokens, without positions, renewed in the layers before the depth."""
    network = prompted(temporal=temporal, vision=number, vision_depth=depth)
    clips = torch.randn(batch, frames, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(training):
        found = network.encode_frames(clips)
    torch.testing.assert_close(found, plain_frames(network, clips), atol=5e-6, rtol=1e-5)


@given(
    number=st.integers(1, 6),
    depth=st.integers(1, 2),
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    training=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_text_prompts_equal_their_plain_form(
    number: int, depth: int, lengths: list[int], training: bool
) -> None:
    """Between start and words, with positions; the end is found where the words moved it."""
    network = prompted(text=number, text_depth=depth)
    texts = [[START, *range(3, 1 + length), END] for length in lengths]
    with torch.set_grad_enabled(training):
        found = network.encode_text(padded(texts))
    expected = plain_texts(network, texts, context_length=CONTEXT)
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=1e-5)


def test_gradients_equal_those_of_the_plain_form() -> None:
    """Of the prompts, the context too, and of every weight around them."""
    sizes = {"vision": 3, "vision_depth": 3, "text": 2, "text_depth": 2}
    clips = torch.randn(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    texts = [[START, 5, 6, END], [START, 7, END]]
    gradients: list[dict[str, Any]] = []
    for plain in (False, True):
        network = prompted(temporal="neighbour", **sizes)
        if plain:
            outputs = plain_frames(network, clips), plain_texts(network, texts, context_length=24)
        else:
            outputs = network.encode_frames(clips), network.encode_text(padded(texts))
        total = sum((out * torch.linspace(-1, 1, out.shape[-1])).square().sum() for out in outputs)
        assert isinstance(total, Tensor)
        total.backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    assert gradients[0].pop("logit_scale") is None
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        scale = float(gradients[1][name].abs().max())
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5 * scale, rtol=1e-4)


def test_prompts_take_their_places_from_the_texts() -> None:
    """A text may be as long as the context without the prompts, and not longer."""
    network = prompted(text=4, text_depth=2)
    assert network.context_length == CONTEXT - 4
    longest = torch.tensor([[START, *range(3, CONTEXT - 4 + 1), END]])
    assert longest.shape[1] == CONTEXT - 4
    expected = plain_texts(network, longest.tolist(), context_length=CONTEXT)
    torch.testing.assert_close(network.encode_text(longest), expected, atol=5e-6, rtol=1e-5)
    with pytest.raises(RuntimeError):
        network.encode_text(torch.cat([longest, longest], dim=1))


def test_prompts_begin_small_and_random() -> None:
    """Normal with a deviation of 0.02, and the same for the same seed."""
    architecture = {
        **system("frames"),
        "prompts": {"vision": 200, "vision_depth": 3, "text": 20, "text_depth": 2},
    }
    first, again = build(architecture, seed=1), build(architecture, seed=1)
    for values in (first.visual.prompts.context, first.visual.prompts.deep):
        assert float(values.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert float(values.detach().mean()) == pytest.approx(0, abs=1e-3)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_names_tell_the_towers_apart() -> None:
    """CLIP's own weights keep their names and values; a depth of one has no deep prompts."""
    plain = build(system("frames")).state_dict()
    network = prompted(vision=3, vision_depth=3, text=2, text_depth=1)
    added = {n: tuple(t.shape) for n, t in network.state_dict().items() if n not in plain}
    assert added == {
        "visual.prompts.context": (3, 32),
        "visual.prompts.deep": (2, 3, 32),
        "prompts.context": (2, 32),
    }
    architecture = {**system("frames"), "prompts": {"text": 2, "text_depth": 1}}
    for name, tensor in build(architecture).state_dict().items():
        assert name not in plain or torch.equal(tensor, plain[name]), name


@pytest.mark.parametrize("training", [False, True])
def test_prompts_work_in_bf16(training: bool) -> None:
    """They take the type of the tokens that they join."""
    network = prompted(temporal="neighbour", vision=3, vision_depth=2, text=2, text_depth=2)
    clips = torch.randn(1, 2, 3, 40, 40)
    ids = torch.tensor([[START, 5, END]])
    with torch.no_grad():
        full = network.encode_frames(clips), network.encode_text(ids)
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.encode_frames(clips), network.encode_text(ids)
    for found, expected in zip(half, full, strict=True):
        assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()
    with torch.no_grad():
        assert network.bfloat16().encode_frames(clips.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"vision": 2}, r"prompts\.vision_depth: 0 is not from 1 to 3, with 2 prompts in 3 layers"),
        ({"vision": 2, "vision_depth": 4}, r"prompts\.vision_depth: 4 is not from 1 to 3"),
        ({"text": 2, "text_depth": 1, "vision_depth": 1}, r"vision_depth: 1 is not from 0 to 0"),
        ({"text": 22, "text_depth": 1}, r"prompts\.text: 22 leave fewer than 3 of 24"),
        ({"text": 1.5, "text_depth": 1}, r"prompts\.text must be a whole number from 0, got 1\.5"),
        ({"text": -1, "text_depth": 1}, r"prompts\.text must be a whole number from 0, got -1"),
        ({}, r"prompts: neither vision nor text"),
        ({"words": 3}, r"prompts: not supported: words; known: "),
        (16, r"prompts: 16 is no table of vision, vision_depth, text, text_depth"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts: Any, message: str) -> None:
    """The line names the key, the value and the limit."""
    with pytest.raises(ValueError, match=message):
        build({**system("frames"), "prompts": prompts})
