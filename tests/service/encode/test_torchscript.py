"""The optional TorchScript runtime gives the numbers of the ONNX one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.encode import torchscript
from service.videoclip.manifest import ArtefactError
from tests.service import small_artefact
from tests.service.small_artefact import DIMENSION, FRAMES, SIZE, weights


def _video(frames: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return frames.mean((3, 4)) @ weights["visual.proj"] + weights["visual.bias"]


def _text(ids: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return weights["token_embedding.weight"][ids].mean(1) @ weights["text_projection"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_towers_compute_with_the_weights_they_are_given(tmp_path: Path) -> None:
    """One archive without weights serves two sets of weights, for any number of clips."""
    arrays = weights(1)
    given = {name: torch.from_numpy(value) for name, value in arrays.items()}
    frames = np.random.default_rng(0).normal(size=(2, FRAMES, 3, SIZE, SIZE)).astype(np.float32)
    ids = np.array([[1, 2, 3]], np.int64)
    for function, example, name in (
        (_video, frames[:1], "video_encoder.ts"),
        (_text, ids, "text_encoder.ts"),
    ):
        trace: Any = torch.jit.trace  # carries no types
        traced = trace(function, (torch.from_numpy(example), given))
        traced.save(str(tmp_path / name))
    for seed in (1, 2):
        chosen = weights(seed)
        video = torchscript.video_tower(tmp_path, weights=chosen, threads=1)
        text = torchscript.text_tower(tmp_path, weights=chosen, threads=1)
        assert video(frames).shape == (2, FRAMES, DIMENSION)
        expected = small_artefact.expected_video(frames, chosen)
        assert video(frames) == pytest.approx(expected, abs=1e-5)
        assert text(ids) == pytest.approx(small_artefact.expected_text(ids, chosen), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_missing_or_foreign_file_is_one_clear_line(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ArtefactError, match=r"video_encoder\.ts: expected a TorchScript file"):
        torchscript.video_tower(tmp_path, weights={}, threads=1)
    (tmp_path / "text_encoder.ts").write_bytes(b"no archive")
    with pytest.raises(ArtefactError, match=r"text_encoder\.ts: expected a TorchScript file"):
        torchscript.text_tower(tmp_path, weights={}, threads=1)
