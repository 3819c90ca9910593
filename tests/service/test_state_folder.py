"""One service owns the folder of all state."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.state_folder import StateFolder, StateFolderError

_HOLD = """
import sys
from pathlib import Path
from service.state_folder import StateFolder
StateFolder(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """The refusal names the process; kill -9 of it sets the folder free."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        folder = StateFolder(tmp_path / "state")
        with pytest.raises(StateFolderError, match=str(owner.pid)):
            folder.acquire()
        owner.kill()
        owner.wait()
        folder.acquire()
        folder.release()
        folder.release()


def test_a_folder_has_a_name_and_a_copy_another(tmp_path: Path) -> None:
    """The same at every start, also after one that was killed while it wrote the name."""
    first = StateFolder(tmp_path / "state")
    first.acquire()
    (first.path / ".name.new").write_text("half")
    name = first.name
    assert StateFolder(tmp_path / "state").name == name
    shutil.copytree(first.path, tmp_path / "copy")
    assert StateFolder(tmp_path / "copy").name not in {"", name}
    first.release()


def test_a_path_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    """A file in the way is the operator's to move."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateFolderError, match="VTAG_DATA_DIR") as caught:
        StateFolder(tmp_path / "state").acquire()
    assert "\n" not in str(caught.value)
