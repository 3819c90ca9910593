"""What a training writes down: one line a step and one a validation, also when it goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.run_log import STEPS_FILE, VALIDATIONS_FILE, RunLog
from training.step import StepReport


def write(folder: Path, *, begin: int, steps: int, loss: float) -> None:
    """Log the steps from `begin` on, each second one with a validation."""
    with RunLog(folder, steps=steps, begin=begin, images=4, device=torch.device("cpu")) as log:
        for step in range(begin, steps):
            log.add(step, StepReport(loss, None, None, float("inf"), 1e-3, {"part": loss}))
            if step % 2:
                log.add_validation(step, loss + step)


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_resumed_log_has_every_step_and_every_validation_once(tmp_path: Path) -> None:
    """What was written after the checkpoint is written anew, also a line that a kill cut off."""
    write(tmp_path, begin=0, steps=6, loss=1.0)
    for name in (STEPS_FILE, VALIDATIONS_FILE):
        with (tmp_path / name).open("a", encoding="utf-8") as stream:
            stream.write('{"step": 6, "lo')
    write(tmp_path, begin=3, steps=8, loss=2.0)
    steps = lines(tmp_path / STEPS_FILE)
    assert [line["step"] for line in steps] == list(range(8))
    assert [line["loss"] for line in steps] == [1.0] * 3 + [2.0] * 5
    assert steps[0]["gradient_norm"] is None  # JSON has no infinity
    assert lines(tmp_path / VALIDATIONS_FILE) == [
        {"step": 1, "loss": 2.0},
        {"step": 3, "loss": 5.0},
        {"step": 5, "loss": 7.0},
        {"step": 7, "loss": 9.0},
    ]


def test_a_folder_that_is_used_anew_keeps_nothing(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint begins at step 0."""
    write(tmp_path, begin=0, steps=4, loss=1.0)
    write(tmp_path, begin=0, steps=2, loss=2.0)
    assert [line["loss"] for line in lines(tmp_path / STEPS_FILE)] == [2.0, 2.0]
    assert lines(tmp_path / VALIDATIONS_FILE) == [{"step": 1, "loss": 3.0}]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_that_is_not_finite_is_null(tmp_path: Path, loss: float) -> None:
    """JSON has no word for it, and a reader must not stumble over the line."""
    with RunLog(tmp_path, steps=1, begin=0, images=4, device=torch.device("cpu")) as log:
        log.add_validation(0, loss)
    assert lines(tmp_path / VALIDATIONS_FILE) == [{"step": 0, "loss": None}]
