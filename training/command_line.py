"""The command line of `python -m training`: its commands, in the order of its help."""

import argparse
import sys
from typing import NoReturn, Protocol

from training.commands import (
    calibrate,
    caption,
    check_reference,
    demo,
    draw,
    evaluate,
    export,
    golden,
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
    golden,
    export,
    draw,
    demo,
    reproduce,
    check_reference,
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how a command is used is in its help."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The command line. What it parses has `command`, a function of the parsed arguments."""
    top = _Parser(
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
