"""The service needs neither torch nor open_clip nor our training package."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.running_service import running_service

# Found by every Python process of the service, its children included, through PYTHONPATH.
SITE_CUSTOMIZE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "open_clip", "training"}:
            raise ModuleNotFoundError(f"{name} is absent in this test", name=name)

sys.meta_path.insert(0, Refuse())
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, service
names = [m.name for m in pkgutil.walk_packages(service.__path__, "service.")]
names.remove("service.encode.torchscript")  # the optional runtime: all that torch is for
for name in names:
    importlib.import_module(name)
print(len(names))
"""

CLAIM_ABSENT = """
import importlib
for name in ("torch", "open_clip", "training"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was importable")
"""


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which torch, open_clip and training cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def run(code: str, *, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the code in a Python process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_test_does_hide_torch(without_torch: dict[str, str]) -> None:
    """The hiding works, so that the next test proves something."""
    hidden = run(CLAIM_ABSENT, environment=without_torch)
    assert hidden.returncode == 0, hidden.stderr


def test_every_module_of_the_service_imports_without_torch(without_torch: dict[str, str]) -> None:
    """Importing all of the service but its optional TorchScript runtime needs no torch."""
    imported = run(IMPORT_EVERYTHING, environment=without_torch)
    assert imported.returncode == 0, imported.stderr
    assert int(imported.stdout) > 20


@pytest.mark.slow
def test_the_service_starts_and_tags_without_torch(
    without_torch: dict[str, str], tiny_artefact: Path
) -> None:
    """From start to scored tags, child processes included, nothing asks for torch."""
    settings = {"PYTHONPATH": without_torch["PYTHONPATH"], "VTAG_MODEL_STORE": str(tiny_artefact)}
    # Not below pytest's folder: run as root, the embedded Postgres is another user.
    with tempfile.TemporaryDirectory(prefix="vtag-torch-free-") as name:
        folder = Path(name)
        clip = draw_video(folder / "clip.mp4").read_bytes()
        with running_service(folder, environment=settings) as service:
            answer = httpx.post(
                f"{service.url}/classify",
                files={"video": ("clip.mp4", clip, "video/mp4")},
                data={"labels": ["a square", "a circle"]},
                timeout=60,
            )
    assert answer.status_code == 200, answer.text
    assert {tag["label"] for tag in answer.json()["tags"]} == {"a square", "a circle"}
