"""Replacing a revision: a reader, a crash and a second publisher always find a whole one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training import revision_folder
from training.revision_folder import exchange, put, written_aside

REVISION = "0123456789ab"
# The first line of both files of a folder is the same number: a mixture would be seen.
ENDLESS = """
import sys
from pathlib import Path
from training.revision_folder import put, written_aside
parent = Path(sys.argv[1])
number = 0
while True:
    number += 1
    with written_aside(parent) as written:
        for name in "ab":
            (written / name).write_text(str(number))
        put(written, parent / "0123456789ab", replace=True)
    print(number, flush=True)
"""


def fill(folder: Path, text: str) -> None:
    """Two files that belong together."""
    for name in "ab":
        (folder / name).write_text(text)


def publish(parent: Path, text: str, *, replace: bool = True) -> Path:
    """Write a folder aside and put it in its place."""
    with written_aside(parent) as written:
        fill(written, text)
        put(written, parent / REVISION, replace=replace)
    return parent / REVISION


def content(folder: Path) -> set[str]:
    """What both files say, through one descriptor: names are resolved once."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        found = set()
        for name in "ab":
            file = os.open(name, os.O_RDONLY, dir_fd=descriptor)
            with os.fdopen(file) as stream:
                found.add(stream.read())
        return found
    finally:
        os.close(descriptor)


def test_a_folder_appears_and_is_replaced(tmp_path: Path) -> None:
    """The new content is there, and nothing else is left."""
    assert content(publish(tmp_path, "old")) == {"old"}
    assert content(publish(tmp_path, "new")) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == [REVISION]


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """Else the one that is there stays."""
    publish(tmp_path, "old")
    with pytest.raises(FileExistsError):
        publish(tmp_path, "new", replace=False)
    assert content(tmp_path / REVISION) == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == [REVISION]


@pytest.mark.skipif(sys.platform != "linux", reason="exchanging two names is Linux's")
def test_a_reader_never_finds_nothing(tmp_path: Path) -> None:
    """The name resolves at every moment of two hundred replacements."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        fill(folder, folder.name)
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange folders")
    done = threading.Event()
    missing: list[float] = []

    def read() -> None:
        while not done.is_set():
            if not one.exists():
                missing.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(200):
            assert exchange(one, other)
    finally:
        done.set()
        reader.join()
    assert missing == []


@pytest.mark.parametrize("delay_seconds", [0.0, 0.003, 0.007, 0.011])
def test_a_kill_while_replacing_leaves_a_whole_folder(tmp_path: Path, delay_seconds: float) -> None:
    """Wherever kill -9 hits, the revision is there and of one piece; the rest goes next time."""
    publish(tmp_path, "0")
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        time.sleep(delay_seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert len(content(tmp_path / REVISION)) == 1
    publish(tmp_path, "after")
    assert [path.name for path in tmp_path.iterdir()] == [REVISION]


def test_two_steps_are_told_and_mended_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without exchange: it works, says so, and what a kill left in between is put back."""
    monkeypatch.setattr(revision_folder, "exchange", lambda *_: False)
    publish(tmp_path, "old")
    publish(tmp_path, "new")
    assert "two steps" in caplog.text
    assert content(tmp_path / REVISION) == {"new"}
    # As a kill after the first step leaves it.
    (tmp_path / REVISION).rename(tmp_path / f".replaced-{REVISION}")
    with written_aside(tmp_path):
        assert content(tmp_path / REVISION) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == [REVISION]


def test_folders_of_the_living_are_left_alone(tmp_path: Path) -> None:
    """Only what no process holds any more is removed."""
    dead = tmp_path / ".publishing-dead"
    dead.mkdir()
    fill(dead, "half")
    with written_aside(tmp_path) as first, written_aside(tmp_path) as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not dead.exists()


def test_other_failures_are_raised(tmp_path: Path) -> None:
    """A missing folder is not taken for a system without exchange."""
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "none", tmp_path / "neither")
