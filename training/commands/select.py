"""`python -m training select`."""

import argparse
from pathlib import Path

from training.commands.way_arguments import add_way

NAME = "select"
HELP = "measure λ from 0 to 1, and choose one by the configuration's rule"
DESCRIPTION = (
    "Sweeps λ over the sets in data.evaluation, with every video decoded once for all λ and all "
    "runs, and applies the rule in the table select: best_mean, harmonic_mean, "
    "zero_shot_above_floor or knee. The run's folder gets the curve, the rule and the choice as "
    "curve.json, curve.md and curve.svg; `publish` takes them from there. Without a table select "
    "the curve is measured and written, and no λ is chosen."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("config", type=Path, help="the TOML file that the run was trained by")
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="runs with other seeds, for the mean"
    )
    parser.add_argument("--steps", type=int, default=10, help="distances between 0 and 1 (10)")
    add_way(parser.add_argument)
    parser.add_argument(
        "--again",
        action="store_true",
        help="apply the rule to the curve that is there, without measuring",
    )


def run(parsed: argparse.Namespace) -> int:
    """Measure the λ curve, choose, write and print both."""
    from training.config import ConfigError, load_config, read_toml

    read_toml(parsed.config)  # a slip in the name is not answered after seconds of imports
    from tqdm import tqdm

    from training.curve_report import (
        TABLE_FILE,
        choose_and_write,
        describe_curve,
        read_curve,
        write_unchosen,
    )
    from training.evaluate.measure import distinct_videos
    from training.measure_runs import evaluation_plans, measure_runs
    from training.provenance import environment
    from training.run_config import RunConfig

    config = load_config(parsed.config, RunConfig)
    rule = config.select
    if parsed.steps < 1:
        raise ConfigError(f"--steps {parsed.steps}: below 1")
    if parsed.again:
        if rule is None:
            raise ConfigError(f"{parsed.config}: missing table select: --again applies its rule")
        print(choose_and_write(config.run, read_curve(config.run), rule).reason)
        return 0
    plans = evaluation_plans(config)
    for name, plan in plans.items():
        for note in plan.notes:
            print(f"note: {name}: {note}")
    runs = (config.run, *parsed.run)
    with tqdm(total=len(distinct_videos(plans)), desc="measure", unit="video") as bar:
        measured = measure_runs(
            runs,
            plans,
            steps=parsed.steps,
            views=parsed.views,
            crops=parsed.crops,
            template_mean=parsed.template_mean,
            rule=parsed.view_rule,
            threads=max(1, config.data.workers),
            memory_bytes=parsed.memory_bytes,
            on_videos=bar.update,
        )
    for path, reason in measured.failed:
        print(f"left out: {path}: {reason}")
    described = describe_curve(
        measured, environment=environment(measured.models[0]["device"], precision="fp32")
    )
    if rule is None:
        write_unchosen(config.run, described)
    else:
        choose_and_write(config.run, described, rule)
    print((config.run / TABLE_FILE).read_text(encoding="utf-8"))
    return 0
