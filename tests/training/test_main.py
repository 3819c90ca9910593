"""Wrong paths and numbers: one clear line, exit code 2, whatever the command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training.__main__ import main


@pytest.fixture
def artefact() -> Path:
    """The demo model."""
    (folder,) = (REPOSITORY / "model_store" / "demo").iterdir()
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "argument --threads: 0 is below 1"),
        (["--threads", "two"], "argument --threads: 'two' is no whole number"),
        (["--memory-gib", "nan"], "argument --memory-gib: nan is not above 0"),
        (["--memory-gib", "0"], "argument --memory-gib: 0 is not above 0"),
        (["--memory-gib", "much"], "argument --memory-gib: 'much' is no number"),
        (["--crops", "2"], "argument --crops: invalid choice: 2"),
    ],
)
def test_numbers_out_of_bounds(
    artefact: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser refuses them before anything is read."""
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", str(artefact), "videos.csv", *arguments])
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_reader_that_has_enough_is_no_error() -> None:
    """`| head` closes the pipe: no stack trace."""
    command = f"{sys.executable} -m training protocols | true"
    found = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stderr == ""


def test_a_demo_of_no_seed_is_refused_before_anything_is_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It would draw and train CLIP first."""
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--seeds", "0"])
    assert caught.value.code == 2
    assert "argument --seeds: 0 is below 1" in capsys.readouterr().err


def test_a_damaged_artefact_is_named_with_its_folder(
    artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command may look at several artefacts: the file alone says too little."""
    copy = shutil.copytree(artefact, tmp_path / "copy")
    (copy / "weights_tuned.safetensors").write_bytes(b"cut")
    assert main(["evaluate", str(copy), "videos.csv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {copy}/weights_tuned.safetensors: expected ")
    assert error.count("\n") == 1


def test_a_place_that_nothing_can_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with the system's reason."""
    (tmp_path / "file").write_text("not a folder")
    arguments = ["--train", "1", "--validation", "1", "--test", "1", "--sets", "source"]
    assert main(["draw", str(tmp_path / "file" / "videos"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/file")
    assert "Not a directory" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "select", "publish", "demo", "reproduce"])
@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), ("run = \n", "not TOML")])
def test_a_configuration_that_cannot_be_read_is_refused_before_torch_is_imported(
    tmp_path: Path, command: str, text: str | None, reason: str
) -> None:
    """A slip in the name costs no seconds of imports."""
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_text(text)
    name = "--config" if command in ("demo", "reproduce") else None
    arguments = [command, *([name] if name else []), str(path)]
    code = (
        "import sys\n"
        "from training.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(code)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 2, found.stderr
    assert found.stderr.startswith(f"error: {path}: {reason}")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "select"])
def test_videos_that_are_not_drawn_yet_are_named_with_the_remedy(
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The committed configurations work on Motion World: who forgot `draw` is told so."""
    config = REPOSITORY / "training" / "configs" / "motion_world" / "vifi_clip.toml"
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "model_store"):
        assert not (tmp_path / name).exists()
    (tmp_path / "model_store").symlink_to(REPOSITORY / "model_store")
    assert main([command, str(config)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: runs/motion-world/")
    assert error.count("\n") == 1
    if command == "train":
        assert error.endswith(
            "/source/train/list.csv: not drawn yet: run `python -m training draw` first\n"
        )
