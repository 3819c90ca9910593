"""What the image installs is what is pinned, file by file, and its licences are listed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "docker"
TOOLS = Path(sys.prefix) / "audit" / "bin"
NAMES = ("build", "cpu", "gpu")


def pins(path: Path) -> dict[str, str]:
    """Canonical name -> version of the pins of a file, hashed or not."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("name", NAMES)
def test_every_requirement_has_its_hashes(name: str) -> None:
    """A line is a pin that goes on, or a sha256: nothing else, so pip can refuse all others."""
    lines = (FOLDER / f"requirements-{name}.txt").read_text().splitlines()[1:]
    assert lines
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"[\w.-]+==[\w.]+ \\", line):
            assert following.startswith("    --hash=")
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


def test_the_image_has_the_versions_that_were_tested() -> None:
    """All of constraints/service.txt in both images, but for what builds and the other runtime."""
    tested = pins(REPOSITORY / "constraints" / "service.txt")
    build, cpu, gpu = (pins(FOLDER / f"requirements-{name}.txt") for name in NAMES)
    assert build.items() <= tested.items()
    assert cpu.items() <= tested.items()
    assert tested.keys() - cpu.keys() - build.keys() <= {"editables", "onnxruntime-gpu"}
    nvidia = {name for name in gpu if name.startswith("nvidia-")}
    assert nvidia
    assert gpu.keys() - nvidia == cpu.keys() - {"onnxruntime"} | {"onnxruntime-gpu"}
    assert {name: gpu[name] for name in gpu.keys() - nvidia}.items() <= tested.items()


def test_the_licence_of_every_pin_is_listed() -> None:
    """`make licences` was run after the last change of a pin."""
    rows = re.findall(
        r"^\| ([\w.-]+) \| ([\w.]+) \| (.+) \|$",
        (REPOSITORY / "deploy" / "LICENCES.md").read_text(),
        re.MULTILINE,
    )
    listed = {canonicalize_name(name): version for name, version, _ in rows}
    for path in [*(REPOSITORY / "constraints").glob("*.txt"), FOLDER / "requirements-gpu.txt"]:
        assert pins(path).items() <= listed.items(), f"{path.name}: make licences"
    assert not [row for row in rows if row[2].strip().upper() in ("", "UNKNOWN")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_bill_of_materials_names_every_package(tmp_path: Path, name: str) -> None:
    """CycloneDX, as `make sbom` makes it: name, version and hashes of all that is installed."""
    program = TOOLS / "cyclonedx-py"
    if not program.exists():
        pytest.skip("no cyclonedx-py: `make sbom` installs it")
    requirements, written = FOLDER / f"requirements-{name}.txt", tmp_path / "sbom.json"
    command: list[str | Path] = [
        program,
        "requirements",
        "--sv",
        "1.6",
        "--of",
        "JSON",
        "--output-reproducible",
    ]
    command += ["--pyproject", REPOSITORY / "pyproject.toml", "-o", written, requirements]
    subprocess.run(command, check=True, capture_output=True)
    document = json.loads(written.read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "vtag"
    found = {part["name"]: part for part in document["components"]}
    listed = {canonicalize_name(part): found[part]["version"] for part in found}
    assert listed == pins(requirements)
    for part in found.values():
        assert any(reference.get("hashes") for reference in part["externalReferences"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_audit_reads_every_requirement(name: str) -> None:
    """As far as `make audit` goes without an advisory database: all is pinned, hashed and read."""
    program = TOOLS / "pip-audit"
    if not program.exists():
        pytest.skip("no pip-audit: `make audit` installs it")
    path = FOLDER / f"requirements-{name}.txt"
    command: list[str | Path] = [
        program,
        "--dry-run",
        "--strict",
        "--require-hashes",
        "--disable-pip",
        "-r",
        path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"would have audited {len(pins(path))} packages" in done.stderr
