"""`python -m training publish`."""

import argparse
import sys
from pathlib import Path

NAME = "publish"
HELP = "export a run and put it into the model store"
DESCRIPTION = (
    "Exports the run at both ends, compares every graph with the network, and writes an artefact "
    "with the λ that the configuration's rule chooses on the curve that `select` measured; without "
    "a table select, with the λ of the recipe's paper. With publish.variants it adds graphs in "
    "fewer bits, and measures what they lose. `make serve` serves what was published last."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("config", type=Path, help="the TOML file that the run was trained by")
    parser.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    parser.add_argument("--replace", action="store_true", help="replace the same weights")


def run(parsed: argparse.Namespace) -> int:
    """Publish a run."""
    from training.config import load_config, read_toml

    read_toml(parsed.config)  # a slip in the name is not answered after seconds of imports
    from training.release import release
    from training.run_config import RunConfig

    config = load_config(parsed.config, RunConfig)
    folder = release(config, activate=not parsed.no_activate, replace=parsed.replace)
    print(folder)
    if not parsed.no_activate:
        print(f"{folder.parent.name}@{folder.name} is the one that is served", file=sys.stderr)
    return 0
