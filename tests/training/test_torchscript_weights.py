"""TorchScript archives, as OpenAI published CLIP: read as data, never as programs."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import tiny_weights
from training.torchscript_weights import is_torchscript
from training.weights import WeightsError, read_weights


class _Module(nn.Module):
    """Modules as deep as the names of a state dict, and a forward pass to be traced."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            owner: nn.Module = self
            *folders, leaf = name.split(".")
            for folder in folders:
                if not hasattr(owner, folder):
                    owner.add_module(folder, _Module({}))
                owner = getattr(owner, folder)
            owner.register_parameter(leaf, nn.Parameter(tensor.clone()))

    def forward(self, x: Tensor) -> Tensor:
        """Any program."""
        return x * 2


def archive(path: Path, *, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """A traced network with CLIP's names and OpenAI's three numbers; its weights."""
    clip, _ = tiny_weights()
    network = _Module(clip).to(dtype)
    for name, value in (("input_resolution", 40), ("context_length", 24), ("vocab_size", 517)):
        network.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what OpenAI used
        traced: Any = torch.jit.trace(network, torch.zeros(2))  # type: ignore[no-untyped-call]
    traced.save(str(path))
    return {name: tensor.to(dtype).float() for name, tensor in clip.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_archive_gives_the_names_and_values_of_its_state_dict(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """All weights, in float32, without OpenAI's numbers; the loader of programs is not needed."""
    path = tmp_path / "ViT-B-32.pt"
    expected = archive(path, dtype=dtype)
    assert is_torchscript(path)
    found = read_weights(path)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_program_is_not_looked_at(tmp_path: Path) -> None:
    """With code that no loader would accept, the weights are the same."""
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    expected = archive(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(broken, "w") as target:
        for entry in source.infolist():
            code = "/code/" in entry.filename
            target.writestr(entry.filename, b"no program" if code else source.read(entry))
    assert set(read_weights(broken)) == set(expected)


def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    """Cut off in the middle, or without a record."""
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    archive(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(broken, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith("/data.pkl"):
                target.writestr(entry.filename, source.read(entry))
    for path in (broken, tmp_path / "half.pt"):
        if path != broken:
            path.write_bytes(whole.read_bytes()[:5000])
        with pytest.raises(
            WeightsError, match=f"{path.name}: not a file of plain weights"
        ) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    """Those of `torch.save`, of either kind, and what is no file of weights at all."""
    path = tmp_path / "w.pt"
    for new in (True, False):
        torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=new)
        assert not is_torchscript(path)
    path.write_bytes(b"nonsense")
    assert not is_torchscript(path)
