"""`python -m training reproduce`."""

import argparse
from pathlib import Path

NAME = "reproduce"
HELP = "reproduce the five papers in miniature and write training/REPRODUCTION.md"
DESCRIPTION = (
    "Draws Motion World with a seed of its own, trains every system and baseline of the papers on "
    "it with several seeds, measures them, and writes which of the papers' claims hold here. The "
    "committed configuration took 38 minutes on two cores, most of them free. Every finished run "
    "is kept in the work folder: an interrupted reproduction goes on where it stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    here = Path(__file__).parents[1]
    parser.add_argument(
        "--config",
        type=Path,
        default=here / "configs" / "reproduction.toml",
        help="everything that decides the figures (training/configs/reproduction.toml)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/reproduction"),
        help="folder of finished runs (runs/reproduction)",
    )
    parser.add_argument("--output", type=Path, default=here, help="folder of the report (training)")
    parser.add_argument("--clip", type=Path, help="start from this artefact, not the config's")
    parser.add_argument(
        "--minutes", type=float, help="begin no further run after these, and report what is there"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="write the report from finished runs"
    )


def run(parsed: argparse.Namespace) -> int:
    """Reproduce and report."""
    from training.config import read_toml

    read_toml(parsed.config)  # a slip in the name is not answered after seconds of imports
    from training.reproduction.make import main

    return main(
        config=parsed.config,
        work=parsed.work,
        output=parsed.output,
        clip=parsed.clip,
        minutes=parsed.minutes,
        report_only=parsed.report_only,
    )
