"""Folders and buckets list videos by name and lend their bytes."""

from pathlib import Path

import pytest

from service.bulk.source import Bucket, Folder, SourceError, open_source


def test_a_folder_lists_videos_by_their_path_below_it(tmp_path: Path) -> None:
    """Endings are compared without case; other files are passed over; versions follow changes."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/er/A.MP4", "b.webm", "notes.txt", "noending"):
        (tmp_path / name).write_bytes(b"12345")
    folder = Folder(tmp_path)
    listed = {file.name: file for file in folder.files()}
    assert set(listed) == {"deep/er/A.MP4", "b.webm"}
    assert listed["b.webm"].size_bytes == 5
    (tmp_path / "b.webm").write_bytes(b"54321")
    assert {file.name: file for file in folder.files()}["b.webm"] != listed["b.webm"]
    with folder.local("b.webm") as path:
        assert path.read_bytes() == b"54321"


def test_a_file_that_went_away_is_an_os_error(tmp_path: Path) -> None:
    """Between listing and reading anything can happen."""
    with pytest.raises(OSError, match="gone"), Folder(tmp_path).local("gone.mp4"):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [("s3://", "names a bucket"), ("gs://bucket/x", "nothing else"), ("/no/such/place", "folder")],
)
def test_what_is_no_source_is_one_line(text: str, words: str) -> None:
    """It names what was given and what could be."""
    with pytest.raises(SourceError, match=words) as refused:
        list(open_source(text).files())
    assert "\n" not in str(refused.value)
    assert text in str(refused.value)


def test_a_bucket_is_named_by_its_url() -> None:
    """With or without a prefix; nothing is asked of it."""
    assert open_source("s3://films/2026") == Bucket("s3://films/2026")
    assert open_source("~/films") == Folder(Path.home() / "films")
