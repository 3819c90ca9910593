"""Names of classes from files, and matching by name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluate.class_lists import (
    ClassListError,
    class_list,
    key,
    list_hash,
    match,
    read_class_list,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id,name\n1,kick ball\n0,brush hair\n", ("brush hair", "kick ball")),
        ("name,other\nkick ball,x\nbrush hair,y\n", ("kick ball", "brush hair")),
        ("adult+male+singing,1\nclapping,0\n", ("clapping", "adult+male+singing")),
        ("kick ball\n\n  brush hair \n", ("kick ball", "brush hair")),
        ("mop, clean\nbrush hair\n", ("mop, clean", "brush hair")),
    ],
)
def test_a_class_file_is_csv_or_lines(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    """In the order of the index where there is one, else of the lines."""
    file = tmp_path / "classes.csv"
    file.write_text(text)
    assert read_class_list(file) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no names"),
        (b"id,name\n0,a\n1\n", "line 3: fewer fields"),
        (b"id,name\nx,a\n", "'x' is no index"),
        (b"kick ball\nKick_Ball\n", "'kick ball' and 'Kick_Ball' cannot be told apart"),
        (b"+\n", "no letter or digit"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_list_is_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    """It names the file and what is wrong in it."""
    file = tmp_path / "classes.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ClassListError, match=message) as caught:
        read_class_list(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spellings_of_one_class_are_one_class() -> None:
    """As UCF-101 spells it in a folder, in a file name, and as Open-VCLIP does."""
    given = ["HandStandPushups", "HandstandPushups", "handstand_pushups", "YoYo"]
    assert match(given, class_list("ucf101"), where="ucf101") == {
        "HandStandPushups": "Handstand Pushups",
        "HandstandPushups": "Handstand Pushups",
        "handstand_pushups": "Handstand Pushups",
        "YoYo": "Yoyo",
    }


def test_sorting_file_names_does_not_swap_classes() -> None:
    """HMDB-51's kick_ball is sorted before kick by some, and still means kick ball."""
    files = sorted(name.replace(" ", "_") + "_test" for name in class_list("hmdb51"))
    given = [file.removesuffix("_test") for file in files]
    assert given.index("kick_ball") < given.index("kick")
    assert match(given, class_list("hmdb51"), where="hmdb51")["kick"] == "kick"


def test_a_name_that_is_no_class_is_one_line() -> None:
    """It names the first, counts the others, and says which list was meant."""
    with pytest.raises(ClassListError, match=r"'Juggling' \(and 1 more\): none of the 51 classes"):
        match(["kick", "Juggling", "Kayaking"], class_list("hmdb51"), where="EP2/hmdb51")


@given(st.lists(st.text(min_size=1, max_size=6), unique_by=key, max_size=8))
def test_matching_is_the_identity_on_the_classes_themselves(names: list[str]) -> None:
    """Whatever the order in which they are given."""
    classes = [name for name in names if key(name)]
    assert match(reversed(classes), classes, where="x") == {name: name for name in classes}


def test_the_hash_depends_on_names_and_order() -> None:
    """And two lists never run into each other."""
    assert list_hash(["a", "b"]) != list_hash(["b", "a"])
    assert list_hash(["a", "b"]) != list_hash(["ab"])
    assert len(list_hash(())) == 64
