"""Two processes train as one: real processes, started by torchrun, that talk over gloo."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.tiny_run import draw_videos, write_config
from training import distributed
from training.__main__ import main
from training.losses import pair_loss
from training.run_log import RunLog

RECIPES: dict[str, dict[str, Any]] = {
    # A loss of single clips; α must be the same for both.
    "[open_vclip]": {
        "regularisation": {"interpolation_coefficient": 0.5, "snapshots": 2},
        "optimisation": {"accumulate": 2},
    },
    # Losses of pairs of clips, whose negatives are on both; killed on the way, and gone on with.
    '[fitclip]\nunlabelled_texts = "captions"': {"validation": {"every": 1}},
    # Rows that every process fits to the same videos, before the first step.
    '[text4vis]\nclassifier = "lda"\nlda_videos_per_class = 3': {},
}
STEPS = 4


def torchrun(*arguments: str, processes: int = 2) -> int:
    """Run a module in processes that torchrun starts; returns its exit code."""
    return subprocess.run(
        [
            sys.executable,
            *("-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), "-m", *arguments),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    ).returncode


def numbers(path: Path) -> list[dict[str, Any]]:
    """The lines of a log without what they leave empty; none where there is no such file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines()]
    return [{name: v for name, v in line.items() if v is not None} for line in found]


@pytest.mark.timeout(700)
@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_train_as_one(recipe: str, start: Path, tmp_path: Path) -> None:
    """The same losses, gradients and, to 1e-5, weights; one of the processes writes.

    AdamW and clipping would hide a gradient that is too large by a constant factor; its norm does
    not. A kill -9 between two checkpoints changes nothing.
    """
    videos = draw_videos(tmp_path, count=6, broken=1)
    weights: list[dict[str, Tensor]] = []
    for processes in (1, 2):
        run = tmp_path / f"run{processes}"
        tables = {name: dict(keys) for name, keys in RECIPES[recipe].items()}
        tables.setdefault("optimisation", {}).update(steps=STEPS, peak_learning_rate=1e-4)
        tables["data"] = {"unlabelled": str(videos)}
        killed = "validation" in tables
        if killed:
            tables["validation"]["videos"] = str(videos)
        tables["top"] = {"checkpoint_every": 2}
        path = write_config(
            tmp_path / f"{processes}.toml",
            run=run,
            clip=start,
            videos=videos,
            recipe=recipe,
            **tables,
        )
        if processes == 1:
            assert main(["train", str(path)]) == 0
        elif killed:
            assert torchrun("tests.training.test_distributed", "kill", str(path)) != 0
            assert len(numbers(run / "steps.jsonl")) == STEPS - 1
            assert torchrun("training", "train", str(path), "--resume") == 0
        else:
            assert torchrun("training", "train", str(path)) == 0
        weights.append(load_file(run / "last.safetensors"))
        facts = json.loads((run / "run.json").read_text())
        assert facts["processes"] == processes
        assert len(facts["failed"]) == 1
    for name, count in (("steps.jsonl", STEPS), ("validations.jsonl", STEPS if killed else 0)):
        expected, found = (numbers(tmp_path / f"run{processes}" / name) for processes in (1, 2))
        assert [line["step"] for line in found] == list(range(count))
        for one, other in zip(expected, found, strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6), one["step"]
    begun = load_file(start / "weights_clip.safetensors")
    assert any(not torch.equal(begun[name], tensor) for name, tensor in weights[0].items())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-5, rtol=0, msg=name)


@pytest.mark.slow
def test_the_gradient_comes_back_through_a_gathering(tmp_path: Path) -> None:
    """Every rank gets the rows of all; averaged over ranks, gradients are those of one process."""
    assert torchrun("tests.training.test_distributed", "gather", str(tmp_path)) == 0
    rows, scale = _pairs()
    loss = pair_loss(scale.exp() * rows @ rows.flip(-1).T)
    loss.backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert scale.grad is not None
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    for rank, tensors in enumerate(found):
        torch.testing.assert_close(tensors["loss"], loss.detach())
        torch.testing.assert_close(tensors["scale"], scale.grad)
        # Each rank's share of the mean over two ranks.
        torch.testing.assert_close(tensors["rows"] / 2, rows.grad[2 * rank : 2 * rank + 2])
        assert tensors["first"] == 7
        assert tensors["mean"] == 0.5


def test_one_process_needs_no_others() -> None:
    """Nothing is joined, gathered, averaged or waited for."""
    x = torch.ones(2, requires_grad=True)
    assert distributed.gather_with_gradient(x) is x
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.average(x) is x
    assert distributed.tell_all(True)
    assert distributed.gather_texts({"a": "b"}) == [{"a": "b"}]
    distributed.wait_for_all()


def _pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 6, generator=generator).requires_grad_()
    return rows, torch.tensor(0.3, requires_grad=True)


def _on_each_rank(folder: Path) -> None:
    """What torchrun runs: this rank's rows of the pairs, and what the gathering makes of them."""
    from safetensors.torch import save_file

    with distributed.process_group():
        rank = distributed.rank()
        rows, scale = _pairs()
        own = rows.detach()[2 * rank : 2 * rank + 2].clone().requires_grad_()
        every = distributed.gather_with_gradient(own)
        loss = pair_loss(scale.exp() * every @ every.flip(-1).T)
        loss.backward()  # type: ignore[no-untyped-call]
        assert own.grad is not None
        assert scale.grad is not None
        save_file(
            {
                "loss": loss.detach(),
                "rows": own.grad,
                "scale": distributed.average(scale.grad),
                "first": distributed.copy_from_first(torch.tensor(7 - rank)),
                "mean": distributed.average(torch.tensor(float(rank))),
            },
            folder / f"{rank}.safetensors",
        )


def _kill_on_the_way(config: Path) -> None:
    """What torchrun runs: a training that kills its writing process past a checkpoint."""
    noted = RunLog.add_validation

    def note_and_die(log: RunLog, step: int, loss: float) -> None:
        noted(log, step, loss)
        if step == STEPS - 2:
            os.kill(os.getpid(), signal.SIGKILL)

    RunLog.add_validation = note_and_die  # type: ignore[method-assign, assignment]
    main(["train", str(config)])


if __name__ == "__main__":
    {"gather": _on_each_rank, "kill": _kill_on_the_way}[sys.argv[1]](Path(sys.argv[2]))
