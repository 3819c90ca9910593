"""Arguments of every command that puts an artefact into a model store."""

import argparse
from pathlib import Path


def add_store(parser: argparse.ArgumentParser) -> None:
    """Where the store is, and what happens to what is there."""
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("model_store"),
        help="folder that the artefact goes into (model_store)",
    )
    parser.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    parser.add_argument("--replace", action="store_true", help="replace the same weights")
