"""Write the image's requirements, every file by its sha256: `make constraints` ends with this.

The versions are those of constraints/service.txt; what NVIDIA adds to the GPU image is pinned here
alone. pip installs them with `--require-hashes`: a file that changed in a registry is refused.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "deploy" / "docker"

_PYTHON = "3.11.14"  # of the image: deploy/docker/Dockerfile
_PLATFORM = "x86_64-manylinux_2_28"

# name -> (extras of the project or none, packages outside it, what the file says about itself)
REQUIREMENTS: dict[str, tuple[str | None, tuple[str, ...], str]] = {
    "build": (None, ("hatchling",), "what builds the wheel"),
    "cpu": ("cpu,milvus,tracing", (), "the service on ONNX Runtime"),
    "gpu": (
        "gpu,milvus,tracing",
        ("onnxruntime-gpu[cuda,cudnn]",),
        "the service on ONNX Runtime with CUDA",
    ),
}


def resolve(extra: str | None, packages: tuple[str, ...]) -> str:
    """Return the lines of a requirements file with hashes."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.in"
        project = [f"vtag[{extra}] @ {PROJECT.as_uri()}"] if extra else []
        wanted.write_text("\n".join([*project, *packages]) + "\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--python-version", _PYTHON]
        command += ["--python-platform", _PLATFORM, "--no-emit-package", "vtag"]
        command += ["--constraints", str(PROJECT / "constraints" / "service.txt"), str(wanted)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write deploy/docker/requirements-*.txt."""
    for name, (extra, packages, purpose) in REQUIREMENTS.items():
        lines = resolve(extra, packages)
        lines = "".join(f"{line}\n" for line in lines.splitlines() if not line.startswith("#"))
        path = FOLDER / f"requirements-{name}.txt"
        path.write_text(f"# {purpose}. Written by `make constraints`.\n{lines}")
        print(f"{path.name}: {lines.count('==')} packages")


if __name__ == "__main__":
    main()
