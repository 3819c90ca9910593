"""Weights of others: read without running anything, and refused with a reason."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.weights import WeightsError, read_checkpoint, read_weights, require_names


class _Payload:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/dev/null",))


STATE = {"a": torch.ones(2, dtype=torch.float16), "b.c": torch.zeros(1, 2)}


@pytest.mark.parametrize("kind", ["safetensors", "plain", "nested", "module", "openai"])
def test_all_usual_layouts_are_read(tmp_path: Path, kind: str) -> None:
    """With and without a wrapper, a prefix, or OpenAI's three numbers; always float32."""
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(STATE, path)
    elif kind == "plain":
        torch.save(STATE, path)
    elif kind == "nested":
        torch.save({"state_dict": STATE, "epoch": 3}, path)
    elif kind == "module":
        torch.save({f"module.{n}": t for n, t in STATE.items()}, path)
    else:
        torch.save({**STATE, "context_length": torch.tensor(77), "vocab_size": 9}, path)
    found = read_weights(path)
    assert set(found) == set(STATE)
    assert all(t.dtype == torch.float32 for t in found.values())


def _hostile() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": _Payload()}, buffer, pickle_module=pickle)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", _hostile(), r"an object of \S+open, .*take out 'state_dict' in a sandbox"),
        ("w.pt", b"nonsense", "not a file of plain weights"),
        ("w.safetensors", b"nonsense", "not a whole safetensors file"),
        ("w.pt", None, "no such file"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """A pickle that wants to call something is refused, not run."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(path)
    assert name in str(caught.value)


def test_a_section_is_found_and_the_rest_is_named(tmp_path: Path) -> None:
    """Settings and optimiser lie beside the weights; nothing is taken for weights but these."""
    path = tmp_path / "w.pt"
    torch.save({"model_state": STATE, "epoch": 3, "optimizer_state": {"state": {}}}, path)
    found = read_checkpoint(path, section="model_state")
    assert (found.section, found.beside) == ("model_state", ("epoch", "optimizer_state"))
    assert {n: t.dtype for n, t in found.tensors.items()} == {n: t.dtype for n, t in STATE.items()}
    torch.save(STATE, path)
    assert read_checkpoint(path, section="model_state").section is None


@pytest.mark.parametrize("prefix", ["", "module."])
def test_sections_that_belong_together_are_joined(tmp_path: Path, prefix: str) -> None:
    """Each may carry the prefix of distributed training by itself."""
    path = tmp_path / "w.pt"
    parts = {"one": {f"{prefix}a": torch.ones(1)}, "two": {"b": torch.zeros(1)}}
    torch.save(parts, path)
    found = read_checkpoint(path, section="one", joined={"two": "head."})
    assert set(found.tensors) == {"a", "head.b"}
    assert found.beside == ()


def test_two_sections_that_disagree_are_refused(tmp_path: Path) -> None:
    """Neither of two values of one weight is chosen silently; equal ones are one."""
    path = tmp_path / "w.pt"
    torch.save({"one": {"head.b": torch.ones(1)}, "two": {"b": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"two: is there twice, with other values: head\.b"):
        read_checkpoint(path, section="one", joined={"two": "head."})
    torch.save({"one": {"head.b": torch.ones(1)}, "two": {"b": torch.ones(1)}}, path)
    assert set(read_checkpoint(path, section="one", joined={"two": "head."}).tensors) == {"head.b"}


def test_a_section_of_other_things_is_named(tmp_path: Path) -> None:
    """Where weights should be, there are none."""
    path = tmp_path / "w.pt"
    torch.save({"model": {"w": torch.ones(1), "depth": 3}}, path)
    with pytest.raises(WeightsError, match=r"w\.pt: model: no tensors under depth"):
        read_checkpoint(path, section="model")
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds no state dict, but a list"):
        read_checkpoint(path)


def test_values_that_are_no_weights_are_named(tmp_path: Path) -> None:
    """Something else beside the tensors is not dropped silently."""
    path = tmp_path / "w.pt"
    torch.save({**STATE, "optimizer": {"lr": 1.0}}, path)
    with pytest.raises(WeightsError, match="optimizer"):
        read_weights(path)


def test_every_mismatch_is_listed() -> None:
    """Missing, unknown and misshapen weights, in one message."""
    with pytest.raises(WeightsError) as caught:
        require_names(
            {"a": torch.zeros(3), "x": torch.zeros(1)},
            expected={"a": torch.zeros(2), "b": torch.zeros(1)},
            where="file",
        )
    assert "b is missing; x is unknown; a has shape (3,), not (2,)" in str(caught.value)
