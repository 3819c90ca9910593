"""`python -m training draw`: Motion World as files that training reads."""

from pathlib import Path

import pytest

from training.__main__ import main
from training.data.annotations import read_video_list

SMALL = ("--sets", "source", "--train", "3", "--validation", "1", "--test", "1")
CAMERA = ("--pixels", "32", "--frames", "4", "--seconds", "0.5", "--processes", "1")


def test_sets_are_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists with labels and captions; a second call changes nothing; another world is refused."""
    assert main(["draw", str(tmp_path), *SMALL, *CAMERA]) == 0
    lists = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert lists == [
        tmp_path / f"source/{split}/list.csv" for split in ("train", "validation", "test")
    ]
    videos = read_video_list(lists[0])
    assert len(videos) == 3
    assert all(video.path.is_file() and video.label and video.captions for video in videos)
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))]
    assert main(["draw", str(tmp_path), *SMALL, *CAMERA]) == 0
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))] == before
    capsys.readouterr()
    for other, message in (
        (("--train", "4"), "was drawn with videos = 3, not 4"),
        (("--seed", "2"), "was drawn with seed = 1, not 2"),
        (("--frames", "8"), "was drawn with frames = 4, not 8"),
    ):
        assert main(["draw", str(tmp_path), *SMALL, *CAMERA, *other]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sets", "moon"), "--sets moon: one of source"),
        (("--pixels", "33"), "--pixels 33"),
        (("--train", "0"), "--train 0"),
        (("--seed", "-1"), "--seed -1: must not be negative"),
        (("--seconds", "nan"), "--seconds nan: from 0.1 to 600"),
        (("--seconds", "1e-9"), "--seconds 1e-09: from 0.1 to 600"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the argument and its value."""
    assert main(["draw", str(tmp_path / "world"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "world").exists()
