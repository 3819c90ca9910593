"""Everything that gets installed is pinned, once, in the file of the step that needs it."""

import re
import tomllib
from collections import Counter

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*")


def pins(name: str) -> list[str]:
    """Canonical names of the packages that one constraints file pins."""
    lines = (REPOSITORY / "constraints" / f"{name}.txt").read_text().splitlines()
    return [canonicalize_name(line.split("==")[0]) for line in lines if "==" in line]


def wanted(*extras: str) -> set[str]:
    """Canonical names of the project's direct dependencies with some of its extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = list(project["dependencies"]) if not extras else []
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in listed}


def test_constraints_hold_exact_versions_and_nothing_else() -> None:
    """No index, no address, no range: a line is a pin, a comment or an earlier file."""
    for path in sorted((REPOSITORY / "constraints").glob("*.txt")):
        for line in path.read_text().splitlines():
            assert line.startswith(("#", "-c ")) or PIN.fullmatch(line), f"{path.name}: {line}"


def test_every_direct_dependency_is_pinned_where_it_is_installed() -> None:
    """A dependency added to pyproject.toml needs `make constraints`."""
    assert wanted() | wanted("cpu", "gpu") <= set(pins("service"))
    assert wanted("training", "torch") <= {*pins("service"), *pins("training")}
    assert wanted("test", "lint") <= {*pins("service"), *pins("training"), *pins("dev")}


def test_no_package_is_pinned_twice() -> None:
    """Two pins of one package could disagree."""
    counts = Counter([*pins("service"), *pins("training"), *pins("dev"), *pins("audit")])
    assert {name: count for name, count in counts.items() if count > 1} == {}


def test_the_service_is_installed_without_torch() -> None:
    """The pins of `make install` name neither torch nor anything of CUDA but the GPU runtime."""
    assert [
        name for name in pins("service") if name.startswith(("torch", "nvidia", "open-clip"))
    ] == []
