"""Weights of others: read without running anything, and refused with a reason."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.weights import WeightsError, read_weights, require_names


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
        ("w.pt", _hostile(), "not a file of plain weights"),
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
