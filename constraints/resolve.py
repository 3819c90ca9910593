"""Rewrite the pins: `make constraints` resolves pyproject.toml anew and writes the four files.

Every file holds what its installation adds to the one before it, transitive packages included,
and pulls the earlier ones in, so that a package is pinned once.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent

# name -> (extras of the project, packages outside it, what the file says about itself)
LAYERS = {
    "service": (
        ("cpu", "milvus", "tracing"),
        ("hatchling", "editables"),
        "`make install`: the service on ONNX Runtime, no torch; and its extra tracing",
    ),
    "training": (
        ("training", "captions", "sentences"),
        (),
        "`make install-training`: torch and what training and its optional extras add",
    ),
    "dev": (("test", "lint"), (), "`make test` and `make lint`: tests and checks"),
    "bench": (("bench",), (), "`make bench-index`: engines that the index is compared with"),
    "audit": (
        (),
        ("cyclonedx-bom", "pip-audit", "pip-licenses", "uv"),
        "`make audit`, `make sbom`, `make licences`: tools in a folder of their own",
    ),
}
# The same module in two wheels, so never resolved together: released in step.
TWINS = {"onnxruntime": "onnxruntime-gpu"}
# Chosen by hand: the network's numbers depend on them.
FIXED = ("torch==2.13.0", "torchvision==0.28.0")


def resolve(requirements: list[str]) -> dict[str, str]:
    """Name -> version of everything pip would install for the requirements, from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        subprocess.run(command + requirements, check=True)
        installed = json.loads(report.read_text())["install"]
    # A local label (torch's +cpu) names one machine's build; the pin must fit every build.
    pins = {p["metadata"]["name"]: p["metadata"]["version"].split("+")[0] for p in installed}
    del pins["vtag"]
    return pins | {TWINS[name]: pins[name] for name in TWINS if name in pins}


def main() -> None:
    """Resolve layer by layer, each on top of the pins of the layers before."""
    extras: list[str] = []
    packages: list[str] = []
    known: dict[str, str] = {}
    previous: str | None = None
    for layer, (more_extras, more_packages, purpose) in LAYERS.items():
        extras += more_extras
        packages += more_packages
        fixed = FIXED if "training" in extras else ()
        pinned = [
            f"{name}=={version}" for name, version in known.items() if name not in TWINS.values()
        ]
        everything = resolve([f"{PROJECT}[{','.join(extras)}]", *packages, *fixed, *pinned])
        added = {name: version for name, version in everything.items() if name not in known}
        lines = [f"# {purpose}. Written by `make constraints`."]
        lines += [f"-c {previous}.txt"] if previous else []
        lines += [f"{name}=={added[name]}" for name in sorted(added, key=str.lower)]
        (HERE / f"{layer}.txt").write_text("\n".join(lines) + "\n")
        print(f"{layer}.txt: {len(added)} packages")
        known |= added
        previous = layer


if __name__ == "__main__":
    main()
