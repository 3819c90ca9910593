"""`python -m training`: fine-tune CLIP on video, measure it, choose λ, export and publish it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check failed, 2 wrong input."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    return command(parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check-reference",
        help="compare the network with outputs and gradients of Open-VCLIP's own module",
        description="Exit code 0 if every error is below 1e-4, 1 if one is not, 2 if the file "
        "cannot be used.",
    )
    check.add_argument("file", type=Path, help="a safetensors file of the reference format")
    check.set_defaults(command=_check_reference)
    return parser


def _check_reference(parsed: argparse.Namespace) -> int:
    from training.check_reference import ReferenceFileError, compare_with_reference

    try:
        errors = compare_with_reference(parsed.file)
    except ReferenceFileError as error:
        return _refuse(error)
    print("\n".join(errors.lines()))
    return 0 if errors.passed else 1


def _refuse(error: Exception) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
