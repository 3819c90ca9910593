"""Rules of the house that hold for every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

MAX_LINES = 300
MAX_TEST_LINES = 500  # a test file mirrors its module and carries the plain form it is held to
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
PYTHON_FOLDERS = ("service", "training", "tests", "constraints")


def python_files(*folders: str) -> Iterator[Path]:
    """Every Python file below the named folders of the repository."""
    for folder in folders:
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


def relative(path: Path) -> str:
    """The path as a reader of a failure wants it."""
    return path.relative_to(REPOSITORY).as_posix()


def test_no_file_is_longer_than_it_may_be() -> None:
    """A longer file holds a second noun: 300 lines, and 500 of tests."""
    long = {
        relative(path): lines
        for path in python_files(*PYTHON_FOLDERS)
        if (lines := len(path.read_text(encoding="utf-8").splitlines()))
        > (MAX_TEST_LINES if relative(path).startswith("tests/") else MAX_LINES)
    }
    assert long == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    """Files are called after the thing in them."""
    nameless = [
        relative(path) for path in python_files(*PYTHON_FOLDERS) if path.stem in EMPTY_NAMES
    ]
    assert nameless == []


def test_model_store_and_deploy_hold_no_python() -> None:
    """Artefacts and deployment are data; code lives in the two packages."""
    assert [relative(path) for path in python_files("model_store", "deploy")] == []


def test_every_test_says_what_behaviour_it_proves() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in python_files("tests")
        if path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").strip()
    ]
    assert silent == []
