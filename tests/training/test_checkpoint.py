"""An interrupted training goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import REPOSITORY
from tests.training.test_step import batch, step
from tests.training.tiny_run import write_config
from training import checkpoint
from training.__main__ import main
from training.checkpoint import CheckpointError
from training.run_folder import RunFolder
from training.step import Step

STEPS = 40


def config(path: Path, start: Path, videos: Path, *, run: Path, **tables: dict[str, Any]) -> Path:
    """Everything that a checkpoint must hold: moments, a running mean, α, checkpoints."""
    defaults: dict[str, dict[str, Any]] = {
        "top": {"checkpoint_every": 5},
        "optimisation": {"steps": STEPS},
        "regularisation": {"interpolation_coefficient": 0.5, "snapshots": STEPS // 2},
    }
    for name, keys in tables.items():
        defaults[name] = {**defaults.get(name, {}), **keys}
    return write_config(path, run=run, clip=start, videos=videos, **defaults)  # type: ignore[arg-type]


# A training that kills itself: from outside, on a busy machine, it may be over before it is hit.
KILLED = """
import os, signal, sys
from training.__main__ import main
from training.run_log import RunLog

noted = RunLog.add

def note_and_die(log, step, report):
    noted(log, step, report)
    if step == 12:
        os.kill(os.getpid(), signal.SIGKILL)

RunLog.add = note_and_die
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_training_that_says_nothing_keeps_ten_checkpoints(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short ones, too, can be gone on with: after 12 of 40 steps and a kill, at the twelfth."""
    path = config(tmp_path / "killed.toml", start, videos, run=tmp_path / "killed")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("checkpoint_every")]
    assert len(kept) == len(lines) - 1
    path.write_text("".join(kept), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", KILLED, "train", str(path)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert main(["train", str(path), "--resume"]) == 0
    assert "going on after step 12 of 40" in capsys.readouterr().out
    assert len((tmp_path / "killed/steps.jsonl").read_text().splitlines()) == STEPS


@pytest.mark.slow
def test_a_killed_training_ends_like_one_that_was_not(
    start: Path, videos: Path, tmp_path: Path
) -> None:
    """kill -9 between two checkpoints, then --resume: same losses and weights, one line a step."""
    whole = config(tmp_path / "whole.toml", start, videos, run=tmp_path / "whole")
    killed = config(tmp_path / "killed.toml", start, videos, run=tmp_path / "killed")
    assert main(["train", str(whole)]) == 0
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, "train", str(killed)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert len((tmp_path / "killed/steps.jsonl").read_text().splitlines()) == 13
    assert not (tmp_path / "killed/run.json").exists()
    assert (tmp_path / "killed/checkpoint.safetensors").exists()
    assert main(["train", str(killed), "--resume"]) == 0

    expected, found = (
        [json.loads(line) for line in (tmp_path / name / "steps.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    assert [line["step"] for line in found] == list(range(STEPS))
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5), one["step"]
    for name in ("tuned", "last", "clip"):
        theirs = load_file(tmp_path / f"killed/{name}.safetensors")
        for key, tensor in load_file(tmp_path / f"whole/{name}.safetensors").items():
            torch.testing.assert_close(theirs[key], tensor, atol=1e-5, rtol=0)
    facts = json.loads((tmp_path / "killed/run.json").read_text())
    assert len(facts["failed"]) == 1
    assert not (tmp_path / "killed/checkpoint.safetensors").exists()


def test_a_run_that_is_finished_or_never_began(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume begins what never began, and leaves alone what is finished."""
    path = config(
        tmp_path / "run.toml", start, videos, run=tmp_path / "run", optimisation={"steps": 2}
    )
    assert main(["train", str(path), "--resume"]) == 0
    before = (tmp_path / "run/run.json").stat().st_mtime_ns
    assert main(["train", str(path), "--resume"]) == 0
    assert (tmp_path / "run/run.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(["train", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"top": {"seed": 4}}, "seed = 3, not 4"),
        ({"regularisation": {"snapshots": 2}}, "regularisation.snapshots = 20, not 2"),
    ],
)
def test_another_configuration_cannot_go_on(
    start: Path,
    videos: Path,
    tmp_path: Path,
    tables: dict[str, dict[str, Any]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first key that differs is named; keys that decide no weight may differ."""
    from training.config import load_config
    from training.run_config import RunConfig

    began = config(tmp_path / "began.toml", start, videos, run=tmp_path / "run")
    RunFolder(load_config(began, RunConfig)).create(began)
    other = config(tmp_path / "other.toml", start, videos, run=tmp_path / "run", **tables)
    assert main(["train", str(other), "--resume"]) == 2
    assert message in capsys.readouterr().err
    free = config(tmp_path / "free.toml", start, videos, run=tmp_path / "run", data={"workers": 3})
    RunFolder(load_config(free, RunConfig)).require_usable(resume=True)


def test_a_folder_of_something_else_is_left_alone(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume in a folder that no run made is refused."""
    (tmp_path / "run").mkdir()
    path = config(tmp_path / "run.toml", start, videos, run=tmp_path / "run")
    assert main(["train", str(path), "--resume"]) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_checkpoint_holds_all_of_a_step(tmp_path: Path) -> None:
    """A new step with a checkpoint loaded into it does what the old one would have done next."""

    def regularised() -> Step:
        return step(
            regularisation={
                "interpolation_coefficient": 0.5,
                "snapshots": 9,
                "snapshot_start_share": 0.1,
            },
            optimisation={"precision": "fp16"},
        )

    first, second = regularised(), regularised()
    for number in range(4):
        first(number, batch(seed=number))
    path = tmp_path / "checkpoint.safetensors"
    best = torch.arange(3.0)
    checkpoint.save(path, first, steps_done=4, extra={"best": best}, notes={"seconds": 1.5})
    resumed = checkpoint.load(path, second)
    assert resumed.steps_done == 4
    assert resumed.notes == {"seconds": 1.5}
    assert torch.equal(resumed.extra["best"], best)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    for number in range(4, 7):
        assert first(number, batch(seed=number)) == second(number, batch(seed=number))
    assert torch.equal(first.weights.vector, second.weights.vector)
    assert torch.equal(first.mean.mean, second.mean.mean)
    assert (first.scale.factor, first.mean.count) == (second.scale.factor, second.mean.count)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A damaged file, a file of something else, and one of another network, in one line each."""
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        checkpoint.load(path, step())
    save_file({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        checkpoint.load(path, step())
    checkpoint.save(path, step(), steps_done=1)
    with pytest.raises(CheckpointError, match="another version, recipe or network"):
        checkpoint.load(path, step(optimisation={"decay_all": True}))
