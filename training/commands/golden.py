"""`python -m training golden`."""

import argparse
from pathlib import Path

NAME = "golden"
HELP = "give an older artefact the known outputs that a service checks"
DESCRIPTION = (
    "Computes what the artefact's network gives for a known clip and a known text at λ = 0, 1 and "
    "the default, compares its graphs with that, and adds golden.safetensors to the artefact. "
    "Everything that is published now has it; this is for what was published before. The revision "
    "stays. A service reads the file when it starts or activates the artefact."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("artefact", type=Path, help="model_store/NAME/REVISION")


def run(parsed: argparse.Namespace) -> int:
    """Compute, compare, write."""
    from training.golden import add_known_outputs

    add_known_outputs(parsed.artefact)
    print(parsed.artefact / "golden.safetensors")
    return 0
