"""`python -m training train`."""

import argparse
from pathlib import Path

NAME = "train"
HELP = "fine-tune as a configuration says"
DESCRIPTION = (
    "Fine-tunes CLIP by the recipe whose table the configuration has: open_vclip, open_vclip_pp, "
    "vifi_clip, fitclip or text4vis. The run's folder gets the weights at both ends of λ, every "
    "step's numbers (steps.jsonl, tensorboard/), with a table validation those of each look "
    "(validations.jsonl), and run.json. On several devices: "
    "`torchrun --nproc-per-node N -m training train CONFIG`; optimisation.batch_size is that of "
    "all together."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("config", type=Path, help="a TOML file; see training/configs")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run from its last checkpoint; a run without one begins "
        "again, a finished one is left as it is",
    )
    mode.add_argument(
        "--dry-run",
        action="store_true",
        help="run a few steps on random frames, and print parameters, memory, and how long the "
        "whole run will take; nothing is written",
    )


def run(parsed: argparse.Namespace) -> int:
    """Fine-tune as a configuration says."""
    from training.config import load_config, read_toml

    read_toml(parsed.config)  # a slip in the name is not answered after seconds of imports
    from training.distributed import speaks
    from training.run_config import RunConfig

    config = load_config(parsed.config, RunConfig)
    if parsed.dry_run:
        from training.dry_run import dry_run

        lines = dry_run(config).lines()
    else:
        from training.loop import train

        lines = [str(train(config, source=parsed.config, resume=parsed.resume))]
    if speaks():
        print("\n".join(lines))
    return 0
