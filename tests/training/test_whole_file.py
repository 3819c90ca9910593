"""Files that are written in one step."""

from pathlib import Path

import pytest

from training.whole_file import write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """The text is there in UTF-8, and the folder holds no other name."""
    path = tmp_path / "curve.md"
    for text in ("λ = 1", "λ = 0.5"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [each.name for each in tmp_path.iterdir()] == ["curve.md"]


def test_a_writing_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A surrogate cannot be written: readers keep what was there before."""
    path = tmp_path / "curve.md"
    write_whole(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half of it \ud800")
    assert path.read_text(encoding="utf-8") == "before"
