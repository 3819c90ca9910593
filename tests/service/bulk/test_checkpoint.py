"""A checkpoint knows what is done, whatever kills the load that writes it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bulk.checkpoint import Checkpoint, CheckpointError, Done
from service.bulk.source import SourceFile
from tests.conftest import REPOSITORY

A = SourceFile("a b/ü.mp4", 10, "v1")
B = SourceFile("b.mp4", 20, "v1")


def reopened(path: Path) -> Checkpoint:
    """The checkpoint as the next load finds it."""
    return Checkpoint(path)


def test_what_is_done_is_not_wanted_again(tmp_path: Path) -> None:
    """The same file at the same size and version; failed ones only if asked for."""
    path = tmp_path / "new" / "load.jsonl"
    first = Checkpoint(path)
    assert first.wants(A)
    first.add([Done(A, "indexed"), Done(B, "failed", "not_a_video")])
    assert first.outcomes == {"indexed": 1, "failed": 1}
    first.close()
    second = reopened(path)
    assert not second.wants(A)
    assert second.wants(SourceFile(A.name, 10, "v2"))
    assert second.wants(SourceFile(A.name, 11, "v1"))
    assert not second.wants(B)
    assert second.wants(B, failed_again=True)
    assert not second.outcomes  # it counts what this load has done
    second.close()


@given(cut=st.integers(min_value=1, max_value=60))
def test_half_a_line_is_cut_off(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kill in the middle of writing costs the files of that line, and no other."""
    path = tmp_path_factory.mktemp("cut") / "load.jsonl"
    first = Checkpoint(path)
    first.add([Done(A, "indexed")])
    whole = path.stat().st_size
    first.add([Done(B, "indexed")])
    first.close()
    with path.open("r+b") as file:
        file.truncate(max(whole, path.stat().st_size - cut))
    second = reopened(path)
    assert not second.wants(A)
    assert second.wants(B)
    second.add([Done(B, "known")])
    second.close()
    third = reopened(path)
    assert not third.wants(A)
    assert not third.wants(B)
    third.close()


def test_something_else_is_never_taken_for_one(tmp_path: Path) -> None:
    """One line that names the file and the place; nothing is written to it."""
    path = tmp_path / "notes.txt"
    path.write_text('{"name": "a", "size": 1, "version": "v", "outcome": "indexed"}\nmilk\n')
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"notes.txt is no checkpoint \(byte 63\)"):
        Checkpoint(path)
    assert path.read_bytes() == before


def test_two_loads_do_not_share_one(tmp_path: Path) -> None:
    """The second is refused while the first lives."""
    path = tmp_path / "load.jsonl"
    first = Checkpoint(path)
    code = (
        f"from service.bulk.checkpoint import Checkpoint; from pathlib import Path\n"
        f"try: Checkpoint(Path({str(path)!r}))\nexcept Exception as error: print(error)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "belongs to a load that runs now" in other.stdout
    first.close()
