"""Files that a killed job can go on with."""

import json
from pathlib import Path

import pytest

from training.captioning.records import RecordError, Records
from training.data.captions import read_captions

SETTINGS = {"blip2": "here", "frames": 4}


def test_what_was_written_is_done(tmp_path: Path) -> None:
    """A second opening knows the first one's lines, and adds to them."""
    path = tmp_path / "new" / "captions.jsonl"
    with Records(path, field="caption", settings=SETTINGS) as records:
        assert not records.done
        records.add("a/1.mp4", "The video shows a star — «звезда».")
        records.flush()
    with Records(path, field="caption", settings=SETTINGS) as records:
        assert records.done == {"a/1.mp4": "The video shows a star — «звезда»."}
        records.add("a/2.mp4", "The video shows\u2028a drop.")
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["path"] for line in lines if line] == ["a/1.mp4", "a/2.mp4"]


@pytest.mark.parametrize("cut", [1, 2, 10, 30])
def test_a_line_without_its_end_is_dropped(tmp_path: Path, cut: int) -> None:
    """A process that was killed while it wrote loses that line, and nothing else."""
    path = tmp_path / "captions.jsonl"
    with Records(path, field="caption", settings=SETTINGS) as records:
        records.add("1", "The video shows a red heart.")
        records.add("2", "The video shows a blue drop.")
    path.write_bytes(path.read_bytes()[:-cut])
    with Records(path, field="caption", settings=SETTINGS) as records:
        assert list(records.done) == ["1"]
        records.add("2", "again")
    with Records(path, field="caption", settings=SETTINGS) as records:
        assert records.done == {"1": "The video shows a red heart.", "2": "again"}


def test_the_captions_are_of_the_format_that_training_reads(tmp_path: Path) -> None:
    """`data.captions` of a configuration takes the file as it is."""
    path = tmp_path / "captions.jsonl"
    with Records(path, field="caption", settings=SETTINGS) as records:
        records.add("a/1.mp4", "The video shows a star.")
    assert read_captions(path) == {"a/1.mp4": ("The video shows a star.",)}


def test_lines_of_two_ways_do_not_mix(tmp_path: Path) -> None:
    """Another model or number of frames is refused, by the value that differs."""
    path = tmp_path / "captions.jsonl"
    with Records(path, field="caption", settings=SETTINGS):
        pass
    with pytest.raises(RecordError, match=r"begun with frames = 4, not 8") as refused:
        Records(path, field="caption", settings={**SETTINGS, "frames": 8})
    assert "\n" not in str(refused.value)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A file that says nothing of how it was made, and one with other lines, are refused."""
    foreign, other = tmp_path / "foreign.jsonl", tmp_path / "other.jsonl"
    foreign.write_text('{"path": "1", "caption": "by hand"}\n')
    with pytest.raises(RecordError, match="does not say how it was made"):
        Records(foreign, field="caption", settings=SETTINGS)
    with Records(other, field="captions", settings=SETTINGS) as records:
        records.add("1", ["a", "b"])
    with pytest.raises(RecordError, match="line 1: not a record of caption"):
        Records(other, field="caption", settings=SETTINGS)
    assert foreign.read_text() == '{"path": "1", "caption": "by hand"}\n'


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """The path and the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"captions\.jsonl: "):
        Records(tmp_path / "file" / "captions.jsonl", field="caption", settings=SETTINGS)
