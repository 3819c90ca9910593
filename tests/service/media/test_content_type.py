"""The kind of a file is what its bytes say."""

from pathlib import Path

import pytest

from service.media.content_type import UNKNOWN, content_type, ending
from tests.drawn_video import draw_video


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "video/mp4"),
        ("a.mov", "video/quicktime"),
        ("a.mkv", "video/matroska"),
        ("a.avi", "video/x-msvideo"),
        ("a.ts", "video/mp2t"),
        ("a.flv", "video/x-flv"),
        ("a.mpg", "video/mpeg"),
        ("a.asf", "video/x-ms-asf"),
    ],
)
def test_files_are_known_by_their_bytes(tmp_path: Path, name: str, kind: str) -> None:
    """Written by FFmpeg, read under another name."""
    path = draw_video(tmp_path / name, seconds=0.5, fps=25)
    path = path.rename(tmp_path / "upload")
    assert content_type(path) == kind
    assert ending(kind) == name.partition(".")[2]


@pytest.mark.parametrize("data", [b"", b"<html>", b"GIF89a", b"\x47" * 10, b"\0" * 5000])
def test_what_is_not_known_is_bytes(tmp_path: Path, data: bytes) -> None:
    """Nothing that a browser would show."""
    path = tmp_path / "upload"
    path.write_bytes(data)
    assert content_type(path) == UNKNOWN
