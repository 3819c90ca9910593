"""Numbers on the command line that have to be within bounds."""

import argparse
import math


def at_least_one(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def gibibytes(text: str) -> int:
    """GiB as bytes, above 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not (math.isfinite(value) and value > 0.0):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(value * 2**30)
