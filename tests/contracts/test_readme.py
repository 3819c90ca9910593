"""What the README tells people to do exists."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    "model_store/README.md",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")


def make_targets() -> set[str]:
    """The targets a person can name: those with a line of help."""
    makefile = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_named_in_a_document_exist(name: str) -> None:
    """Every `make something` in code is a target of the Makefile."""
    text = (REPOSITORY / name).read_text()
    code = "\n".join(
        [*(body for _, body in FENCE.findall(text)), *re.findall(r"`([^`\n]+)`", text)]
    )
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
    assert named <= make_targets()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_somewhere(name: str) -> None:
    """Every link without a scheme names a file or folder of the repository."""
    document = REPOSITORY / name
    targets = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    missing = [link for link in targets if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_examples_parse(name: str) -> None:
    """Every block marked json is JSON."""
    for language, body in FENCE.findall((REPOSITORY / name).read_text()):
        if language == "json":
            json.loads(body)


def test_readme_names_the_two_commands() -> None:
    """A newcomer needs `make serve` and `make test`, and CI runs the one that tests."""
    blocks = [body for language, body in FENCE.findall((REPOSITORY / "README.md").read_text())]
    commands = {line.split("#")[0].strip() for body in blocks for line in body.splitlines()}
    assert {"make serve", "make test"} <= commands
    assert "make test" in Path(REPOSITORY / ".ci" / "run").read_text()
