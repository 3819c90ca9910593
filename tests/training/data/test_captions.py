"""Captions from files, joined with videos by name; what does not match is told."""

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.data.annotations import LabelledVideo
from training.data.captions import CaptionError, add_captions, read_captions

WHERE = Path("captions.csv")
CAPTIONS = {"a/1.mp4": ("The video shows a cat.",), "b/2": ("The video shows a dog.", "A dog.")}


def listed(*names: str, caption: str | None = None) -> list[LabelledVideo]:
    """Videos of these names below a folder."""
    return [LabelledVideo(Path("/videos") / name, "x", caption) for name in names]


def save_torch(path: Path) -> None:
    """What `torch.save` makes of name -> text or texts."""
    torch.save({"a/1.mp4": CAPTIONS["a/1.mp4"][0], "b/2": list(CAPTIONS["b/2"])}, path)


def save_json(path: Path) -> None:
    """An object of the same."""
    path.write_text(json.dumps({"a/1.mp4": CAPTIONS["a/1.mp4"][0], "b/2": list(CAPTIONS["b/2"])}))


def save_json_list(path: Path) -> None:
    """Objects with path and caption."""
    items = [{"path": name, "caption": list(texts)} for name, texts in CAPTIONS.items()]
    path.write_text(json.dumps(items))


def save_lines(path: Path) -> None:
    """One object a line, one for each caption."""
    items = [{"path": name, "caption": text} for name, texts in CAPTIONS.items() for text in texts]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def save_csv(path: Path) -> None:
    """One line for each caption."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "caption"))
        writer.writerows((name, text) for name, texts in CAPTIONS.items() for text in texts)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("c.pt", save_torch),
        ("c.pth", save_torch),
        ("c.json", save_json),
        ("c.json", save_json_list),
        ("c.jsonl", save_lines),
        ("c.csv", save_csv),
    ],
)
def test_every_format_holds_the_same(
    tmp_path: Path, name: str, save: Callable[[Path], None]
) -> None:
    """torch, JSON as object or list, JSON Lines and CSV give the same captions."""
    save(tmp_path / name)
    assert read_captions(tmp_path / name) == CAPTIONS


def test_captions_find_their_videos() -> None:
    """By name with or without folders and suffixes, or by the id in a name with times; all videos
    stay, in their order; both sides' rest is told.
    """
    videos = listed(
        "set/a/1.avi", "b/2.mp4", "b/abcdefghijk_000010_000020.mp4", "c/3.mp4", "c/4.mp4"
    )
    captions = {
        **CAPTIONS,
        "abcdefghijk": ("By id.",),
        "elsewhere/3.mp4": ("Once on both sides.",),
        "nobody": ("Unused.",),
    }
    joined = add_captions(videos, captions, where=WHERE)
    assert [video.path for video in joined.videos] == [video.path for video in videos]
    assert [video.caption for video in joined.videos] == [
        "The video shows a cat.",
        "The video shows a dog.",
        "By id.",
        "Once on both sides.",
        None,
    ]
    assert joined.videos[1].more_captions == ("A dog.",)
    assert all(video.label == "x" for video in joined.videos)
    assert joined.without == (Path("/videos/c/4.mp4"),)
    assert joined.unused == ("nobody",)
    assert joined.report() == (
        "captions: 4 of 5 videos have one; without: '4.mp4'; 1 captions belong to none: 'nobody'"
    )


def test_folders_tell_equal_names_apart() -> None:
    """Two videos of one name get each their own caption, a third one none."""
    videos = listed("train/a/1.mp4", "train/b/1.mp4", "train/c/1.mp4")
    captions = {"a/1.mp4": ("of a",), "b/1.mp4": ("of b",)}
    joined = add_captions(videos, captions, where=WHERE)
    assert [video.caption for video in joined.videos] == ["of a", "of b", None]
    assert joined.without == (videos[2].path,)


def test_a_caption_of_the_list_is_kept_or_replaced() -> None:
    """A caption from the file wins; a video that finds none keeps its own, and lacks none."""
    videos = listed("1.mp4", "2.mp4", caption="own")
    joined = add_captions(videos, {"1": ("found",)}, where=WHERE)
    assert [video.caption for video in joined.videos] == ["found", "own"]
    assert joined.without == ()


@pytest.mark.parametrize(
    ("names", "captions", "message"),
    [
        (("a/1.mp4", "b/1.mp4"), ("1",), r"'1' fits /videos/a/1.mp4 and /videos/b/1.mp4"),
        (("a/1.mp4",), ("a/1.mp4", "a/1.avi"), r"'a/1.mp4' and 'a/1.avi' both fit"),
        (("1.mp4",), ("7", "8"), r"none of 2 captions belongs to one of 1 videos: '7', '8' there"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    names: tuple[str, ...], captions: tuple[str, ...], message: str
) -> None:
    """One caption for several videos, several for one, none for any: a line that names them."""
    texts = dict.fromkeys(captions, ("text",))
    with pytest.raises(CaptionError, match=message):
        add_captions(listed(*names), texts, where=WHERE)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/nonexistent/evil"),))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.pt", pickle.dumps({"a": _Evil()}, protocol=2), "not what torch.save writes"),
        ("c.pt", b"", "not what torch.save writes"),
        ("c.json", b"[]", "expected a dict with names"),
        ("c.json", b"{}", "expected a dict with names"),
        ("c.json", b'{"a": 3}', "'a': expected a name, and a text or several"),
        ("c.json", b'{"a": []}', "'a': expected a name, and a text or several"),
        ("c.json", b'[{"path": "a"}]', "'a' has no caption"),
        ("c.csv", b"path,label\na,b\n", "line 2: 'a' has no caption"),
        ("c.csv", b"name,text\na,b\n", "the column 'path' is missing"),
        ("c.json", b"{", "line 1: not JSON"),
    ],
)
def test_files_that_are_no_captions_are_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """Nothing of a file is run, and what is wrong with it is one line with its name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CaptionError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.pt", "gone.csv"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    """The reason is the system's."""
    with pytest.raises(CaptionError, match=f"{name}: No such file or directory"):
        read_captions(tmp_path / name)
