"""What a training says while it runs: a progress bar, a line of JSON a step, TensorBoard."""

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from tqdm import tqdm

from training.step import StepReport
from training.whole_file import write_whole

STEPS_FILE = "steps.jsonl"
VALIDATIONS_FILE = "validations.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
# The newest step's share in the shown speed.
_NEWEST = 0.1


class RunLog:
    """Logs in a run's folder; on rank 0 alone. Lines of steps from `begin` on are written anew.

    images: frames that a step sees, over all ranks.
    """

    def __init__(
        self, folder: Path, *, steps: int, begin: int, images: int, device: torch.device
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / STEPS_FILE
        self._validations = folder / VALIDATIONS_FILE
        for each in (path, self._validations):
            _keep_before(each, begin)
        self._stream = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(
            str(folder / TENSORBOARD_FOLDER), purge_step=begin if begin else None
        )
        self._bar = tqdm(total=steps, initial=begin, desc="fine-tune", unit="step")
        self._images = images
        self._device = device
        self._step_seconds = math.nan
        self._last = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._board.close()
        self._stream.close()

    def add(self, step: int, report: StepReport) -> None:
        """Note a step that is done; `step` counts from 0."""
        fields = asdict(report)
        fields |= fields.pop("parts")
        self._stream.write(_line(step, fields))
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        old = self._step_seconds
        self._step_seconds = seconds if math.isnan(old) else old + _NEWEST * (seconds - old)
        for name, value in fields.items():
            if value is not None and math.isfinite(value):
                self._board.add_scalar(f"train/{name}", value, step)
        speed = self._images / self._step_seconds
        self._board.add_scalar("speed/images_per_second", speed, step)
        self._bar.set_postfix(
            {"loss": f"{report.loss:.3f}", "images/s": f"{speed:.0f}", "memory": self._memory()},
            refresh=False,
        )
        self._bar.update()

    def add_validation(self, step: int, loss: float) -> None:
        """Note a validation after `step`; its line is on the disk at once, for there are few."""
        with self._validations.open("a", encoding="utf-8") as stream:
            stream.write(_line(step, {"loss": loss}))
            stream.flush()
            os.fsync(stream.fileno())
        self._board.add_scalar("validation/loss", loss, step)
        self._bar.write(f"step {step + 1}: validation loss {loss:.4f}")

    def flush(self) -> None:
        """Bring the lines to the disk: a checkpoint follows that counts on them."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._board.flush()

    def _memory(self) -> str:
        """Peak of a graphics card, or what the process has in memory now."""
        if self._device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self._device)
        else:
            used = psutil.Process().memory_info().rss
        return f"{used / 2**30:.1f} GiB"


def _line(step: int, fields: dict[str, Any]) -> str:
    """A line of JSON, which has no word for what is not finite: null."""
    finite = {n: v if v is None or math.isfinite(v) else None for n, v in fields.items()}
    return json.dumps({"step": step, **finite}) + "\n"


def _keep_before(path: Path, step: int) -> None:
    """Keep the lines of the steps before; the others were written after the checkpoint.

    A last line without an end was cut off by a kill, after the checkpoint.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
    write_whole(path, "".join(kept))
