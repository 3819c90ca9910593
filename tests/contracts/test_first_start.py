"""What looks for processes left behind sees those that hide."""

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY

# A child in a group of its own, without any variable, as the service's workers are.
PARENT = """
import subprocess, sys
nowhere = subprocess.DEVNULL
child = subprocess.Popen(["/bin/sleep", "60"], env={}, process_group=0, stdout=nowhere)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def first_start(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program of that name in .ci."""
    spec = importlib.util.spec_from_file_location(
        "first_start", REPOSITORY / ".ci" / "first_start.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_start", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GONE_SECONDS", 0.3)
    return module


def test_a_child_that_outlives_the_service_is_found(first_start: ModuleType) -> None:
    """Its environment is empty and its parent is gone; its id and start time give it away."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        family = first_start.family(parent.pid)
        assert {each.number for each in family} == {parent.pid, child}
        parent.kill()
        parent.communicate()
        [left] = first_start.left_behind(family, data_dir="/no/such/folder")
        assert left.split() == [str(child), "/bin/sleep", "60"]
    finally:
        subprocess.run(["kill", "-9", str(child)], check=True)
    assert first_start.left_behind(family, data_dir="/no/such/folder") == []
