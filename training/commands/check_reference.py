"""`python -m training check-reference`."""

import argparse
from pathlib import Path

NAME = "check-reference"
HELP = "compare the network with outputs and gradients of Open-VCLIP's own module"
DESCRIPTION = (
    "Build the network that FILE describes, run it on the inputs in FILE, and print the largest "
    "errors. Exit code 0 if every error is below 1e-4, 1 if one is not, 2 if the file cannot be "
    "used."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("file", type=Path, help="a safetensors file of the reference format")


def run(parsed: argparse.Namespace) -> int:
    """Compare the network with a reference file."""
    from training.check_reference import compare_with_reference

    errors = compare_with_reference(parsed.file)
    print("\n".join(errors.lines()))
    return 0 if errors.passed else 1
