"""Renaming, completing and accounting for weights; distance from CLIP."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.conversion import (
    Account,
    Rule,
    complete,
    distance_from_clip,
    rename,
    require_descent,
)
from training.weights import Checkpoint, WeightsError

RULES = (
    Rule("old.buffer", None, "not needed"),
    Rule("old.", "new."),
    Rule("raw.", None, "a copy"),
)
EXPECTED = {
    "visual.conv1.weight": torch.zeros(2, 3, 4, 4),
    "visual.positional_embedding": torch.zeros(5, 2),
    "text.weight": torch.zeros(2, 2),
    "text.bias": torch.zeros(2),
    "logit_scale": torch.zeros(()),
}
names = st.text("ab.", min_size=1, max_size=6)


def state() -> dict[str, Tensor]:
    """All weights, each one filled with its own number."""
    return {n: torch.full_like(t, i + 1.0) for i, (n, t) in enumerate(EXPECTED.items())}


def file(tensors: Mapping[str, Tensor], *beside: str) -> Checkpoint:
    """A file of that content, called f."""
    return Checkpoint(path=Path("f"), tensors=dict(tensors), section=None, beside=beside)


def completed(
    weights: dict[str, Tensor], **from_clip: list[str]
) -> tuple[dict[str, Tensor], Account]:
    """`complete` with a CLIP of minus ones."""
    renamed = rename(file(weights), ())
    clip = {name: -torch.ones_like(tensor) for name, tensor in EXPECTED.items()}
    found = complete(renamed, expected=EXPECTED, clip=clip, from_clip=from_clip)
    return found, renamed.account


@given(st.sets(st.sampled_from(["old.", "raw.", ""]).flatmap(lambda p: names.map(p.__add__))))
def test_every_name_is_renamed_or_left_out(tensors: set[str]) -> None:
    """Names of the file = names that were kept + names in the account, each once."""
    weights = {name: torch.zeros(1) for name in tensors}
    renamed = rename(file(weights), RULES)
    left_out = [name for group in renamed.account.left_out.values() for name in group]
    assert sorted([*left_out, *renamed.in_file.values()]) == sorted(weights)
    assert set(renamed.in_file) == set(renamed.weights)


def test_the_first_rule_wins_and_dots_make_prefixes() -> None:
    """A name is met whole, a prefix by its dot."""
    tensors = {n: torch.zeros(1) for n in ("old.buffer", "old.buffer2", "old.a", "older", "raw.x")}
    renamed = rename(file(tensors, "epoch"), RULES)
    assert set(renamed.weights) == {"new.buffer2", "new.a", "older"}
    assert renamed.account.left_out == {"not needed": ["old.buffer"], "a copy": ["raw.x"]}
    assert renamed.account.lines()[-1] == "not looked at: epoch"


def test_two_names_that_become_one_are_refused() -> None:
    """Neither of them silently wins."""
    tensors = {"new.a": torch.zeros(1), "old.a": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"f: old\.a and new\.a are both new\.a"):
        rename(file(tensors), RULES)


def test_what_is_there_is_never_replaced() -> None:
    """CLIP's weights come only where the file has none of a group."""
    found, account = completed(state(), frozen=["text.weight", "text.bias"])
    for name, tensor in state().items():
        assert torch.equal(found[name], tensor)
    assert account.from_clip == {}


def test_a_whole_group_is_filled_and_listed() -> None:
    """The file has no text tower: CLIP's, by name."""
    weights = {n: t for n, t in state().items() if not n.startswith("text.")}
    found, account = completed(weights, frozen=["text.weight", "text.bias"])
    assert float(found["text.bias"][0]) == -1
    assert account.from_clip == {"frozen": ["text.weight", "text.bias"]}


def test_half_a_group_is_not_filled() -> None:
    """A tower of two models would be neither; the missing half is listed."""
    weights = state()
    del weights["text.bias"]
    with pytest.raises(WeightsError, match=r"text\.bias is missing"):
        completed(weights, frozen=["text.weight", "text.bias"])


@pytest.mark.parametrize("stored", [None, float("nan"), float("inf"), -float("inf")])
def test_a_logit_scale_that_is_no_number_is_clips(stored: float | None) -> None:
    """It must never reach an artefact, where every score would be lost."""
    weights = state()
    del weights["logit_scale"]
    if stored is not None:
        weights["logit_scale"] = torch.tensor([stored])
    found, account = completed(weights)
    assert float(found["logit_scale"]) == -1
    assert list(account.from_clip.values()) == [["logit_scale"]]


def test_a_logit_scale_of_one_element_has_no_dimensions() -> None:
    """Lightning's parameter is a vector of one."""
    found, _ = completed({**state(), "logit_scale": torch.tensor([4.6])})
    assert found["logit_scale"].shape == ()


def test_a_scale_that_is_not_a_logarithm_is_refused() -> None:
    """exp(100) is no factor for a cosine."""
    with pytest.raises(WeightsError, match="logit_scale is 100; a checkpoint stores its logarithm"):
        completed({**state(), "logit_scale": torch.tensor(100.0)})


def test_values_that_are_not_finite_are_named() -> None:
    """A diverged training is no artefact."""
    weights = state()
    weights["text.bias"][0] = float("nan")
    with pytest.raises(WeightsError, match=r"not finite in text\.bias"):
        completed(weights)


def test_another_patch_size_is_a_list_of_shapes() -> None:
    """Where more differs than the resolution, no pixels are claimed."""
    weights = state()
    weights["visual.conv1.weight"] = torch.zeros(2, 3, 2, 2)
    weights["visual.positional_embedding"] = torch.zeros(10, 2)
    with pytest.raises(WeightsError, match=r"2 weights do not fit: .*\(2, 3, 2, 2\), not"):
        completed(weights)


@given(st.floats(0.0, 3.0), st.integers(0, 99))
def test_the_distance_is_relative_to_clip(share: float, seed: int) -> None:
    """tuned = CLIP + s x, |x| = |CLIP|: the distance is s, and above 0.7 it is refused."""
    generator = torch.Generator().manual_seed(seed)
    clip = {"a": torch.randn(3, 4, generator=generator), "bias": torch.ones(3)}
    step = torch.randn(3, 4, generator=generator)
    step = step * clip["a"].norm() / step.norm()
    tuned = {"a": clip["a"] + share * step, "bias": torch.zeros(3), "new": torch.ones(9, 9)}
    assert math.isclose(distance_from_clip(clip, tuned), share, rel_tol=1e-4, abs_tol=1e-5)
    if share < 0.69:
        require_descent(clip, tuned, where="f")
    elif share > 0.71:
        with pytest.raises(WeightsError, match="was not fine-tuned from the CLIP"):
            require_descent(clip, tuned, where="f")


def test_long_lists_are_shown_by_their_beginnings() -> None:
    """Hundreds of names are one line: every prefix and how many there are."""
    many = [f"raw_model.visual.{n}" for n in range(40)] + ["raw_model.logit_scale"]
    (line,) = Account(left_out={"a copy": many}).lines()
    assert line == "left out: raw_model.visual.* (40 weights), raw_model.logit_scale (a copy)"
