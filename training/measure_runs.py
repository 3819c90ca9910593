"""The λ curve of finished runs, on the sets that their configuration names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.videoclip.manifest import LambdaPoint
from service.videoclip.pooling import TemplateMean
from training.config import ConfigError
from training.evaluate.closed_set import with_own_classifier
from training.evaluate.crops import Crops
from training.evaluate.embedding import DEFAULT_MEMORY_BYTES
from training.evaluate.inputs import EvaluationList, open_plan
from training.evaluate.measure import measure
from training.evaluate.model import Way
from training.evaluate.model_folder import other_way
from training.evaluate.network_model import network_of_run
from training.evaluate.plan import Plan
from training.evaluate.views import ViewRule
from training.run_config import RunConfig
from training.select_lambda import clip_weights, curve


@dataclass(frozen=True, eq=False)
class MeasuredCurve:
    """A curve and how it was measured.

    points: mean and spread over the runs. plans: set -> what was measured. way: how the models
    were shown videos. models: facts of each run's. failed: videos that were left out.
    """

    points: tuple[LambdaPoint, ...]
    plans: Mapping[str, Plan]
    way: Way
    rule: ViewRule
    models: tuple[Mapping[str, Any], ...]
    failed: tuple[tuple[Path, str], ...]


def evaluation_plans(config: RunConfig) -> dict[str, Plan]:
    """The sets of the configuration, by name. Raises ConfigError when it names none."""
    if not config.data.evaluation:
        raise ConfigError("data.evaluation: names no list to measure on")
    return {
        name: open_plan(
            given if isinstance(given, EvaluationList) else EvaluationList(videos=(given,))
        )
        for name, given in config.data.evaluation.items()
    }


def measure_runs(
    runs: Sequence[Path],
    plans: Mapping[str, Plan],
    *,
    steps: int,
    views: int | None = None,
    crops: Crops = 1,
    template_mean: TemplateMean = "unit",
    rule: ViewRule = "sum_of_logits",
    threads: int = 2,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_videos: Callable[[int], None] | None = None,
) -> MeasuredCurve:
    """Measure one or more runs (seeds) of one configuration at `steps` + 1 λ from 0 to 1.

    Every video is decoded once for all runs and all λ. views, crops, template_mean: see
    `training.evaluate.model_folder.open_model`. Raises ConfigError for a run that is not finished,
    or that differs from the first in more than its seed; else as
    `training.evaluate.measure.measure`.
    """
    models = {str(run): with_own_classifier(network_of_run(run), run) for run in runs}
    _require_seeds(runs, [models[str(run)].facts for run in runs])
    for model in models.values():
        model.way = replace(
            other_way(model.way, views=views), crops=crops, template_mean=template_mean
        )
    results, failed = measure(
        models,
        plans,
        clip_weights=clip_weights(steps),
        rule=rule,
        threads=threads,
        memory_bytes=memory_bytes,
        on_videos=on_videos,
    )
    return MeasuredCurve(
        points=curve([results[name] for name in models]),
        plans=plans,
        way=models[str(runs[0])].way,
        rule=rule,
        models=tuple(model.facts for model in models.values()),
        failed=failed,
    )


def _require_seeds(runs: Sequence[Path], facts: Sequence[Mapping[str, Any]]) -> None:
    """A mean over two systems, or a spread over one and the same run, would say nothing."""
    seen: dict[Any, Path] = {}
    for run, own in zip(runs, facts, strict=True):
        for key in sorted({*own, *facts[0]} - {"run", "seed"}):
            if own.get(key) != facts[0].get(key):
                raise ConfigError(
                    f"--run {run}: is no other seed of {runs[0]}: its {key} is {own.get(key)!r}, "
                    f"not {facts[0].get(key)!r}"
                )
        other = seen.setdefault(own["seed"], run)
        if other is not run:
            raise ConfigError(f"--run {run}: has seed {own['seed']}, as {other} has")
