"""`python -m training demo`."""

import argparse
from pathlib import Path

from training.commands.numbers import at_least_one

NAME = "demo"
HELP = "make the demo model from nothing"
DESCRIPTION = (
    "Draw Motion World, train CLIP and Open-VCLIP on it, choose λ, publish. An interrupted run "
    "goes on where it stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    default = Path(__file__).parents[1] / "configs" / "demo.toml"
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        help="what is drawn, trained and chosen (training/configs/demo.toml)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/demo"),
        help="folder of what can be gone on with (runs/demo)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("model_store"),
        help="folder that the artefact goes into (model_store)",
    )
    parser.add_argument("--seeds", type=at_least_one, default=1, help="fine-tunings to measure (1)")
    parser.add_argument("--compare", action="store_true", help="measure plain fine-tuning too")
    parser.add_argument("--samples", type=Path, help="draw sample videos into this folder")


def run(parsed: argparse.Namespace) -> int:
    """Make the demo model."""
    from training.config import read_toml

    read_toml(parsed.config)  # a slip in the name is not answered after seconds of imports
    from training.demo import main

    return main(
        config=parsed.config,
        work=parsed.work,
        store=parsed.store,
        seeds=parsed.seeds,
        compare=parsed.compare,
        samples=parsed.samples,
    )
