"""One training run from a configuration: prepare, train, keep everything, go on after a kill."""

import contextlib
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tqdm import tqdm

from training import checkpoint, distributed
from training.config import ConfigError
from training.data.dataset import FailedVideo
from training.errors import Refusal
from training.fine_tuning import updates
from training.models.endpoints import clip_end
from training.prepared_run import PreparedRun, pooling_of, prepare, preprocessing_of
from training.provenance import environment
from training.run_config import RunConfig
from training.run_folder import CLIP_FILE, LAST_FILE, TUNED_FILE, RunFolder, described
from training.run_log import RunLog
from training.validation import Validation

_MOST_BETWEEN = 500  # steps between two checkpoints, where the configuration does not say


class DivergedError(Refusal):
    """The loss or its gradient is not finite; names the step."""


def train(config: RunConfig, *, source: Path | None = None, resume: bool = False) -> Path:
    """Run a configuration to its end and return the run's folder.

    The folder gets the weights at both ends, the last step's, every step's numbers, and what is
    needed to do it again (`source`: the configuration file, copied). It must not exist already,
    unless `resume` says to go on in it; then a run that never began begins, and a finished one is
    left as it is. Under `torchrun` every process calls this; rank 0 writes.

    Raises a Refusal for what does not fit, DivergedError when the training diverges.
    """
    with distributed.process_group():
        folder = RunFolder(config)
        first = distributed.rank() == 0
        if first:
            folder.require_usable(resume=resume)
        if distributed.tell_all(folder.finished):
            return folder.path
        run = prepare(config, device=distributed.device_of_rank())
        if first:
            folder.create(source)
            print("\n".join(run.videos.notes), end="\n" if run.videos.notes else "")
        _Training(run, folder).to_the_end()
        distributed.wait_for_all()
    return folder.path


class _Training:
    """The way from the first step, or from a checkpoint, to the finished folder."""

    def __init__(self, run: PreparedRun, folder: RunFolder) -> None:
        self.run = run
        self.folder = folder
        self.first = distributed.rank() == 0
        self.failed: dict[str, str] = {}  # file -> why it could not be decoded
        self.seconds_before = 0.0
        self.begun = time.perf_counter()
        self.validation: Validation | None = None
        config, source = run.config, run.videos.validation
        if config.validation is not None and source is not None:
            self.validation = Validation(
                run.step,
                source,
                run.feed,
                every=config.validation.every,
                workers=config.data.workers,
                on_failure=self._note_failure,
            )

    def to_the_end(self) -> None:
        """Do the steps that are left, and write what came out."""
        run, step = self.run, self.run.step
        if run.recipe.examples_per_class:
            run.recipe.begin(run.examples(on_failure=self._note_failure))
        done = self._go_on() if distributed.tell_all(self.folder.checkpoint.is_file()) else 0
        every = run.config.checkpoint_every
        if every is None:
            every = min(_MOST_BETWEEN, max(1, step.steps // 10))
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log(done)) if self.first else None
            # The workers that decode end with the iterator, also when a step fails.
            batches = stack.enter_context(
                contextlib.closing(run.batches(done, on_failure=self._note_failure))
            )
            try:
                for number, report in updates(step, batches, begin=done):
                    done = number + 1
                    if log is not None:
                        log.add(number, report)
                    if self.validation is not None and self.validation.due(done):
                        loss = self.validation.look()
                        if log is not None:
                            log.add_validation(number, loss)
                    if every and done % every == 0:
                        self._keep(done, log)
            except FloatingPointError as error:
                raise DivergedError(f"step {done + 1} of {step.steps}: {error}") from error
        self._gather_failures()
        if self.first:
            facts = self._save_weights()
            run.recipe.keep(self.folder.path)
            self.folder.finish(facts)

    def _log(self, begin: int) -> RunLog:
        config = self.run.config
        return RunLog(
            self.folder.path,
            steps=self.run.step.steps,
            begin=begin,
            images=config.optimisation.batch_size * config.frames,
            device=self.run.step.device,
        )

    def _note_failure(self, failed: FailedVideo) -> None:
        name = str(failed.path)
        if name not in self.failed:
            self.failed[name] = failed.reason
            tqdm.write(f"left out: {name}: {failed.reason}")

    def _gather_failures(self) -> None:
        for failed in distributed.gather_texts(self.failed):
            self.failed |= failed

    def _keep(self, done: int, log: RunLog | None) -> None:
        """Write a checkpoint, on rank 0."""
        self._gather_failures()
        if log is None:
            return
        log.flush()
        extra = {}
        notes: dict[str, Any] = {
            "seconds": self._seconds(),
            "failed": self.failed,
            "lists_sha256": self.run.videos.sha256,
        }
        if self.validation is not None and self.validation.best is not None:
            extra["best"] = self.validation.best
            notes["best_loss"] = self.validation.best_loss
        checkpoint.save(
            self.folder.checkpoint, self.run.step, steps_done=done, extra=extra, notes=notes
        )

    def _go_on(self) -> int:
        """Read the checkpoint; returns how many steps are done."""
        resumed = checkpoint.load(self.folder.checkpoint, self.run.step)
        if resumed.notes["lists_sha256"] != self.run.videos.sha256:
            raise ConfigError(
                f"run = {str(self.folder.path)!r}: cannot go on: the lists of videos in data have "
                "changed since the checkpoint"
            )
        self.seconds_before = resumed.notes["seconds"]
        self.failed = {**resumed.notes["failed"], **self.failed}
        if self.validation is not None and "best" in resumed.extra:
            self.validation.best = resumed.extra["best"]
            self.validation.best_loss = resumed.notes["best_loss"]
        if self.first:
            print(f"going on after step {resumed.steps_done} of {self.run.step.steps}")
        return resumed.steps_done

    def _seconds(self) -> float:
        return round(self.seconds_before + time.perf_counter() - self.begun, 1)

    def _save_weights(self) -> dict[str, Any]:
        """Write both ends and the last step's weights; returns what there is to know of the run."""
        run, step, start = self.run, self.run.step, self.run.start
        last = step.network_state(step.weights.vector)
        tuned = last
        if self.validation is not None and self.validation.best is not None:
            tuned = step.network_state(self.validation.best)
        elif step.mean.count:
            tuned = step.network_state(step.mean.mean)
        clip = clip_end(run.architecture, start.weights, tuned)
        for name, weights in ((CLIP_FILE, clip), (LAST_FILE, last), (TUNED_FILE, tuned)):
            tensors = {n: t.cpu().contiguous() for n, t in weights.items()}
            save_file(tensors, self.folder.path / name)
        return {
            "recipe": run.config.recipe,
            "config": described(run.config),
            "architecture": run.architecture,
            "pooling": pooling_of(run.config),
            "sampling": run.config.clips.sampling(run.config.frames).model_dump(mode="json"),
            "preprocessing": preprocessing_of(run.config, start).model_dump(mode="json"),
            "steps": step.steps,
            "averaged": step.mean.count,
            "validation_loss": None if self.validation is None else self.validation.best_loss,
            "classes": run.videos.classes,
            "videos": len(run.videos.labelled),
            "lists_sha256": run.videos.sha256,
            "notes": run.videos.notes,
            "failed": [f"{name}: {reason}" for name, reason in sorted(self.failed.items())],
            "clip": f"{start.manifest.name}/{start.manifest.revision}",
            "processes": distributed.world_size(),
            "seconds": self._seconds(),
            **environment(step.device, precision=run.config.optimisation.precision),
        }
