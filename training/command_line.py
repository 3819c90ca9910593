"""The command line of `python -m training`: its commands, in the order of its help."""

import argparse
from typing import Protocol

from training.commands import (
    calibrate,
    caption,
    check_reference,
    demo,
    draw,
    evaluate,
    export,
    import_,
    protocols,
    publish,
    pull,
    reproduce,
    select,
    train,
)


class Command(Protocol):
    """A module of `training.commands`. It imports what it needs when it runs."""

    NAME: str
    HELP: str
    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare what the command takes."""

    def run(self, parsed: argparse.Namespace, /) -> int:
        """Do it; returns the exit code."""


COMMANDS: tuple[Command, ...] = (
    pull,
    import_,
    caption,
    train,
    select,
    publish,
    evaluate,
    protocols,
    calibrate,
    export,
    draw,
    demo,
    reproduce,
    check_reference,
)


def parser() -> argparse.ArgumentParser:
    """The command line. What it parses has `command`, a function of the parsed arguments."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune CLIP on video, measure it, choose λ, export and publish it.",
        epilog="Exit codes: 0 done, 1 a check failed, 2 the input cannot be used.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.DESCRIPTION)
        command.add_arguments(sub)
        sub.set_defaults(command=command.run)
    return top
