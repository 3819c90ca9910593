"""Which label a video has: by list, by folder, by array."""

import json
from pathlib import Path

import pytest

from service.errors import ApiError
from service.jobs.evaluation_folder import list_folder
from service.jobs.labelled_set import LabelledFile, pair, read_set
from service.jobs.unpack import SetFile


def _files(folder: Path, **contents: str) -> list[SetFile]:
    """Files under numbers, as unpacking leaves them; `__` in a keyword is a slash."""
    found = []
    for number, (name, text) in enumerate(contents.items()):
        path = folder / str(number)
        path.write_text(text)
        found.append(SetFile(name.replace("__", "/").replace("_csv", ".csv"), path))
    return found


def _read(files: list[SetFile]) -> dict[str, str]:
    return {v.name: v.label for v in read_set(files, max_list_bytes=1000, param="archive")}


def test_a_list_names_files_relative_to_itself(tmp_path: Path) -> None:
    """Other columns and other files are passed over; a byte order mark and spaces do not matter."""
    rows = "\ufefflabel, path ,caption\na dog,x/1,long\n cats ,./2,\n"
    files = _files(tmp_path, set__list_csv=rows, set__x__1="", set__2="", set__3="", other="")
    assert _read(files) == {"set/x/1": "a dog", "set/2": " cats "}


def test_without_a_list_folders_are_classes(tmp_path: Path) -> None:
    """The folder that holds a file is its label, as it stands."""
    files = _files(tmp_path, set__a_dog__1="", set__cat__1="")
    assert _read(files) == {"set/a_dog/1": "a_dog", "set/cat/1": "cat"}


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        ("path,class\n1,a\n", "must name the columns"),
        ("path,path,label\n1,1,a\n", "must name the columns"),
        ("", "must name the columns"),
        ("path,label\n9,a\n", "no such file, line 2"),
        ("path,label\n../1,a\n", "no such file, line 2"),
        ("path,label\n1,a\n1,b\n", "named twice, line 3"),
        ("path,label\n1,\n", "label is empty, line 2"),
        ("path,label\n1\n", "label is empty, line 2"),
        ('path,label\n"1,a\n', "is not CSV"),
        ("path,label\n" + "1,a\n" * 400, "larger than 1000 bytes"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, rows: str, detail: str
) -> None:
    """One problem, with what is wrong and where."""
    with pytest.raises(ApiError) as caught:
        _read(_files(tmp_path, list_csv=rows, **{"1": ""}))
    assert caught.value.code == "invalid_labelled_set"
    assert detail in caught.value.detail


def test_labels_of_uploads_go_by_order_or_by_name(tmp_path: Path) -> None:
    """An array in order, an object or CSV by file name: the same pairs."""
    files = [SetFile("a.mp4", tmp_path / "0"), SetFile("b.mp4", tmp_path / "1")]
    expected = [LabelledFile(f.name, f.path, label) for f, label in zip(files, "xy", strict=True)]
    assert pair(files, '["x", "y"]') == expected
    assert pair(files, '{"a.mp4": "x", "b.mp4": "y"}') == expected
    assert pair(files, "label,path\nx,a.mp4\ny,b.mp4\n") == expected
    for bad in ('["x"]', "[1, 2]", '{"a.mp4": 1}', '{"c.mp4": "x"}', "x,y\n"):
        with pytest.raises(ApiError) as caught:
            pair(files, bad)
        assert caught.value.code == "invalid_labelled_set"
    same = [SetFile("a.mp4", tmp_path / "0")] * 2
    assert len(pair(same, '["x", "y"]')) == 2
    with pytest.raises(ApiError):
        pair(same, json.dumps({"a.mp4": "x"}))


def test_a_folder_of_the_server_does_not_lead_out_of_its_root(tmp_path: Path) -> None:
    """Upwards, absolute, by links of any kind, nowhere: refused in the same words."""
    root = tmp_path / "root"
    (root / "set" / "a dog").mkdir(parents=True)
    (root / "set" / "a dog" / "1.mp4").write_bytes(b"")
    (root / "set" / ".hidden").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.mp4").write_bytes(b"")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to(root / "set")
    found = list_folder(root, "set", max_files=10)
    assert [file.name for file in found] == ["a dog/1.mp4"]
    assert list_folder(root, "set/", max_files=10) == list_folder(root, "./set", max_files=10)
    bad = ["..", "../secret", "set/../../secret", str(tmp_path / "secret"), "out", "in", "nothing"]
    details = set()
    for folder in (*bad, "set/a dog/1.mp4", "x\0y", "/", ""):
        with pytest.raises(ApiError) as caught:
            list_folder(root, folder, max_files=10)
        assert caught.value.code == "folder_not_allowed"
        details.add(caught.value.detail)
    assert len(details) == 1
    assert str(tmp_path) not in details.pop()
    (root / "set" / "a dog" / "2.mp4").symlink_to(tmp_path / "secret" / "1.mp4")
    with pytest.raises(ApiError) as caught:
        list_folder(root, "set", max_files=10)
    assert (caught.value.code, caught.value.actual) == ("folder_not_allowed", "a dog/2.mp4")
    (root / "set" / "a dog" / "2.mp4").unlink()
    with pytest.raises(ApiError) as caught:
        list_folder(root, "set", max_files=0)
    assert caught.value.code == "too_many_videos"
