"""`check-reference` on files of the same format and other sizes, good and bad."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tests.training.test_network import plain_restatement
from training.__main__ import main
from training.models.network import VideoCLIP, build

SIZES = [
    # resolution, patch, width, layers, heads, out, T, batch, classes, alpha, C
    (32, 16, 32, 1, 2, 12, 1, 1, 2, 0.0, 1.0),
    (48, 8, 64, 4, 4, 24, 5, 3, 7, 0.55, 0.25),
    (64, 32, 48, 2, 3, 8, 11, 2, 3, 0.1, 2.0),
]


def write_reference(path: Path, size: tuple[float, ...]) -> None:
    """Make a reference file with the plain restatement and autograd alone."""
    resolution, patch, width, layers, heads, out, T, batch, classes = map(int, size[:9])
    alpha, C = size[9:]
    architecture = {
        "embed_dim": out,
        "vision_cfg": {
            "image_size": resolution,
            "patch_size": patch,
            "width": width,
            "layers": layers,
            "head_width": width // heads,
        },
        "text_cfg": {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1},
        "quick_gelu": True,
    }
    network, original = build(architecture, seed=1), build(architecture, seed=2)
    scale = torch.tensor(20.0)
    with torch.no_grad():
        for tower in (network, original):
            tower.logit_scale.fill_(math.log(20.0))
    torch.manual_seed(0)
    frames = torch.randn(batch * T, 3, resolution, resolution)
    text = F.normalize(torch.randn(classes, out), dim=-1)
    labels = torch.arange(batch) % classes

    def logits(tower: VideoCLIP) -> Tensor:
        found = plain_restatement(tower, frames.view(batch, T, 3, resolution, resolution))
        per_frame = tower.logit_scale.exp() * F.normalize(found, dim=-1) @ text.T
        mean: Tensor = per_frame.mean(dim=1)
        return mean

    mixed = build(architecture)
    theta = {n: p.detach() for n, p in network.named_parameters()}
    theta_clip = {n: p.detach() for n, p in original.named_parameters()}
    mixed.load_state_dict({n: alpha * theta_clip[n] + (1 - alpha) * theta[n] for n in theta})
    losses = []
    for tower in (network, mixed):
        loss = F.cross_entropy(logits(tower), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    trained = [n for n in theta if n.startswith("visual.") or n == "logit_scale"]
    gradients = [dict(tower.named_parameters()) for tower in (network, mixed)]
    with torch.no_grad():
        view = frames.view(batch, T, 3, resolution, resolution)
        tensors = {
            "ref/input": frames,
            "ref/output": plain_restatement(network, view).flatten(0, 1),
            "ref/output_no_temporal": network.visual(frames),
            "ref/text": text,
            "ref/logit_scale_exp": scale,
            "ref/video_logits": logits(network),
            "ref/labels": labels,
            "iwr/loss_B": losses[0],
            "iwr/loss_interp": losses[1],
        }
    for name in trained:
        first, second = gradients[0][name].grad, gradients[1][name].grad
        assert first is not None
        assert second is not None
        tensors[f"iwr/grad_total/{name}"] = first + C * second
        if name != "logit_scale":
            tensors[name] = theta[name]
            tensors[f"iwr/theta_A/{name}"] = theta_clip[name]
    config = {
        "input_resolution": resolution,
        "patch_size": patch,
        "width": width,
        "layers": layers,
        "heads": heads,
        "output_dim": out,
        "T": T,
    }
    metadata = {
        "config": json.dumps(config),
        "batch": str(batch),
        "iwr": json.dumps({"alpha": alpha, "C": C}),
        "frame_order": "row = b*T + t",
    }
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path, metadata)


def alter(path: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change one tensor of a reference file in place."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path, metadata)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file to take copies of."""
    path = tmp_path_factory.mktemp("reference") / "good.safetensors"
    write_reference(path, SIZES[1])
    return path


def test_the_authors_own_file_passes(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs and gradient of Open-VCLIP's released module are met to 1e-4."""
    path = shared_data("reference/openvclip_reference.safetensors")
    assert main(["check-reference", str(path)]) == 0
    assert "passed" in capsys.readouterr().out


@pytest.mark.parametrize("size", SIZES)
def test_files_of_other_sizes_pass(tmp_path: Path, size: tuple[float, ...]) -> None:
    """Everything is taken from the file: sizes, T, batch, classes, α and C."""
    path = tmp_path / "reference.safetensors"
    write_reference(path, size)
    assert main(["check-reference", str(path)]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "ref/output",
        "ref/output_no_temporal",
        "ref/video_logits",
        "iwr/loss_B",
        "iwr/loss_interp",
        "iwr/grad_total/logit_scale",
        "iwr/grad_total/visual.transformer.resblocks.2.mlp.c_fc.bias",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "iwr/theta_A/visual.proj",
    ],
)
def test_a_tampered_file_fails(
    reference: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One changed value, of any kind, is exit code 1."""
    path = tmp_path / "reference.safetensors"
    path.write_bytes(reference.read_bytes())

    def change(tensor: Tensor) -> Tensor:
        flat = tensor.clone().flatten()
        flat[flat.abs().argmax()] += 0.01 * (1.0 + flat.abs().max())
        return flat.view(tensor.shape)

    alter(path, name, change)
    assert main(["check-reference", str(path)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_not_a_number_fails(tmp_path: Path) -> None:
    """NaN in the reference is a failure: it does not hide behind comparisons."""
    path = tmp_path / "reference.safetensors"
    write_reference(path, SIZES[0])
    alter(path, "iwr/grad_total/visual.proj", lambda t: torch.full_like(t, math.nan))
    assert main(["check-reference", str(path)]) == 1


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "foreign", "folder", "lacking"])
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, damaged and foreign files are exit code 2 and one line that names the file."""
    path = tmp_path / "reference.safetensors"
    if kind == "text":
        path.write_text("not safetensors")
    elif kind == "truncated":
        write_reference(path, SIZES[0])
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "lacking":
        write_reference(path, SIZES[0])
        tensors = load_file(path)
        del tensors["ref/text"]
        metadata = {
            "config": json.dumps({"T": 1}),
            "batch": "1",
            "iwr": json.dumps({"alpha": 0.1, "C": 1}),
        }
        save_file(tensors, path, metadata)
    assert main(["check-reference", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "reference.safetensors" in error
