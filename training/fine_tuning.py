"""The loop: one batch after another through `training.step`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from training.recipe import Batch
from training.step import Step, StepReport


@dataclass(frozen=True)
class FineTuned:
    """State dicts after the last step and averaged along the way (None without averaging)."""

    last: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    reports: tuple[StepReport, ...]


def updates(
    step: Step, batches: Iterable[Batch], *, begin: int = 0
) -> Iterator[tuple[int, StepReport]]:
    """Do the steps from number `begin` (from 0) to the last, and yield each with its report.

    batches: this rank's, the first for step `begin`. Raises ValueError when they run out,
    FloatingPointError when the training diverges.
    """
    step.recipe.train()
    source = iter(batches)
    for number in range(begin, step.steps):
        try:
            batch = next(source)
        except StopIteration:
            raise ValueError(f"the batches ran out after {number} of {step.steps} steps") from None
        yield number, step(number, batch)


def fine_tune(
    step: Step,
    batches: Iterable[Batch],
    *,
    on_step: Callable[[int, StepReport], None] | None = None,
) -> FineTuned:
    """Do all steps, and keep everything in memory. Errors as of `updates`."""
    reports = []
    for number, report in updates(step, batches):
        reports.append(report)
        if on_step is not None:
            on_step(number, report)
    return FineTuned(
        last=step.network_state(step.weights.vector),
        averaged=step.network_state(step.mean.mean) if step.mean.count else None,
        reports=tuple(reports),
    )
