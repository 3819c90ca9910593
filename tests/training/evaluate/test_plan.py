"""Protocols applied to files: matched by name, split as published, refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.annotations import LabelledVideo
from training.errors import Refusal
from training.evaluate.class_lists import class_list
from training.evaluate.inputs import EvaluationList, open_plan
from training.evaluate.official_splits import read_official_splits
from training.evaluate.plan import ClassPart, Plan, plan_classification
from training.evaluate.protocols import find


def classes_folder(root: Path, names: list[str], *, videos: int = 2) -> Path:
    """A folder with a folder of empty files for each name."""
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(videos):
            (root / name / f"{i}.avi").touch()
    return root


def camel(name: str) -> str:
    """UCF-101's own spelling of its folders."""
    return {"Yoyo": "YoYo"}.get(name, name.replace(" ", ""))


def parts(plan: Plan) -> list[ClassPart]:
    """The plan's parts, which must be of classes."""
    found = [part for part in plan.parts if isinstance(part, ClassPart)]
    assert len(found) == len(plan.parts)
    return found


def test_ep1_takes_each_draws_videos_out_of_one_folder(tmp_path: Path) -> None:
    """Ten parts of 50 classes, labels in the words of the protocol, whatever the folders' order."""
    folder = classes_folder(tmp_path, [camel(name) for name in class_list("ucf101")])
    plan = open_plan(EvaluationList(videos=(folder,), protocol="ep1", dataset="ucf101"))
    draws = find("EP1", "ucf101").parts()
    for part, draw in zip(parts(plan), draws, strict=True):
        assert part.classes == draw.classes
        assert len(part.videos) == 100
        for path, label in zip(part.videos, part.labels, strict=True):
            assert camel(part.classes[label]) == path.parent.name
    assert plan.notes[0] == "draw 0: 100 videos, the papers have 6483 to 6696"


def test_the_lists_spelling_can_be_kept(tmp_path: Path) -> None:
    """As ViFi-CLIP and Text4Vis show UCF-101's classes to the text encoder."""
    folder = classes_folder(tmp_path, [camel(name) for name in class_list("ucf101")])
    ask = EvaluationList(videos=(folder,), protocol="EP2", dataset="ucf101", spelling="list")
    (part,) = parts(open_plan(ask))
    assert part.classes == tuple(camel(name) for name in class_list("ucf101"))


def test_a_class_without_videos_is_still_a_candidate(tmp_path: Path) -> None:
    """And a note says so."""
    folder = classes_folder(tmp_path, ["brush_hair", "kick_ball"], videos=3)
    plan = open_plan(EvaluationList(videos=(folder,), protocol="EP2", dataset="hmdb51"))
    (part,) = parts(plan)
    assert part.classes == class_list("hmdb51")
    assert plan.notes == (
        "all: 6 videos, the papers have 5100",
        "all: no video of 'cartwheel' and 48 more, 51 classes",
    )


def test_classes_of_the_users_that_are_too_few_are_noted(tmp_path: Path) -> None:
    """A part of Moments in Time is easier than its 339 classes, under the same name."""
    folder = classes_folder(tmp_path, ["rising", "falling"], videos=1)
    plan = open_plan(EvaluationList(videos=(folder,), protocol="MiT"))
    assert plan.notes == (
        "all: 2 videos, the papers have 33900",
        "all: 2 classes, the protocol has 339",
    )


def test_kinetics600_leaves_other_classes_out(tmp_path: Path) -> None:
    """One list serves three splits; a class of Kinetics-400 belongs to none of them."""
    names = sorted({n for i in (1, 2, 3) for n in class_list(f"kinetics600_split{i}")})
    folder = classes_folder(tmp_path, [*names, "abseiling"], videos=1)
    plan = open_plan(EvaluationList(videos=(folder,), protocol="K600"))
    assert [len(part.videos) for part in plan.parts] == [160, 160, 160]
    assert plan.notes[0] == "left out: 1 other labels, such as 'abseiling'"


def test_base_and_novel_videos_are_told_apart_by_their_classes(tmp_path: Path) -> None:
    """Each half among its own classes only."""
    folder = classes_folder(tmp_path / "videos", ["a", "b", "c"])
    for name, text in (("base", "id,name\n0,b\n1,a\n"), ("novel", "C\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    files = (tmp_path / "base.csv", tmp_path / "novel.csv")
    ask = EvaluationList(videos=(folder,), protocol="base-to-novel", classes=files)
    base, novel = parts(open_plan(ask))
    assert (base.classes, novel.classes) == (("b", "a"), ("C",))
    assert base.labels.tolist() == [1, 1, 0, 0]
    assert {path.parent.name for path in novel.videos} == {"c"}


def test_a_folder_is_measured_among_its_own_names_or_among_more(tmp_path: Path) -> None:
    """As they are spelt; with --classes among all of them."""
    folder = classes_folder(tmp_path / "videos", ["c++", "c"])
    (part,) = parts(open_plan(EvaluationList(videos=(folder,))))
    assert part.classes == ("c", "c++")
    more = tmp_path / "classes.txt"
    more.write_text("mop\nbrush hair\nkick\n")
    other = classes_folder(tmp_path / "more", ["brush_hair", "Mop"])
    (part,) = parts(open_plan(EvaluationList(videos=(other,), classes=(more,))))
    assert part.classes == ("mop", "brush hair", "kick")
    assert part.labels.tolist() == [0, 0, 1, 1]


def test_the_hash_is_of_what_is_asked_and_not_of_where_it_lies(tmp_path: Path) -> None:
    """Equal for a copy of the folder, other for another label."""
    hashes = []
    for place, name in (("one", "run"), ("two", "run"), ("three", "walk")):
        folder = classes_folder(tmp_path / place, [name, "sit"])
        hashes.append(open_plan(EvaluationList(videos=(folder,))).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "EP2", "dataset": "hmdb51"}, "'Juggling': none of the 51 classes of EP2"),
        ({"protocol": "EP3", "dataset": "hmdb51"}, "1 lists of videos, 3 wanted"),
        ({"protocol": "base-to-novel"}, "0 files with classes, 2 wanted"),
        ({"captions": Path("x.csv")}, "folder/any v1: has no use for captions"),
        ({"protocol": "MSR-VTT", "splits": Path("x")}, "has no use for splits"),
        ({"splits": Path("x")}, "official split files for ucf101, hmdb51"),
        ({"protocol": "MSR-VTT", "captions": Path("x.csv")}, "x.csv: No such file"),
    ],
)
def test_files_that_do_not_fit_are_one_line(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    """It says what is wrong and what the protocol needs."""
    folder = classes_folder(tmp_path, ["Juggling"])
    with pytest.raises(Refusal, match=message) as caught:
        open_plan(EvaluationList(videos=(folder,), **arguments))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_draw_without_videos_is_refused() -> None:
    """A mean over nine halves is not the protocol's."""
    draw = find("EP1", "hmdb51").parts()[0]
    missing = [name for name in class_list("hmdb51") if name not in (draw.classes or ())]
    videos = [LabelledVideo(path=Path(f"{name}.avi"), label=name) for name in missing]
    with pytest.raises(Refusal, match="draw 0: the list has no video of its 25 classes"):
        plan_classification(find("EP1", "hmdb51"), [videos])


def ucf_splits(folder: Path) -> Path:
    """Split files of two classes: what is tested in split i is trained on in the others."""
    folder.mkdir()
    videos = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("YoYo", "HandstandPushups") for g in (1, 2, 3)]
    for split in (1, 2, 3):
        test = [v for v in videos if f"_g0{split}_" in v]
        train = [f"{v} {7 if 'YoYo' in v else 9}" for v in videos if v not in test]
        (folder / f"testlist0{split}.txt").write_text("\n".join(test) + "\n")
        (folder / f"trainlist0{split}.txt").write_text("\r\n".join(train))
    return folder


def test_ucfs_split_files_give_the_test_videos(tmp_path: Path) -> None:
    """Also where a file's name has another case or suffix than the split file says."""
    splits = ucf_splits(tmp_path / "splits")
    videos = tmp_path / "videos"
    for label in ("YoYo", "HandstandPushups"):
        (videos / label).mkdir(parents=True)
        for g in (1, 2, 3):
            stem = f"v_{label}_g0{g}_c01".replace("Handstand", "HandStand")
            (videos / label / f"{stem}.mp4").touch()
    found = read_official_splits("ucf101", videos=videos, splits=splits)
    assert len(found.used) == 6
    for split, test in enumerate(found.tests, start=1):
        assert [v.label for v in test] == ["YoYo", "HandstandPushups"]
        assert all(f"_g0{split}_" in v.path.name for v in test)
    ask = EvaluationList(videos=(videos,), protocol="EP3", dataset="ucf101", splits=splits)
    plan = open_plan(ask)
    assert [len(part.videos) for part in plan.parts] == [2, 2, 2]
    (few,) = open_plan(
        EvaluationList(videos=(videos,), protocol="few-shot", dataset="ucf101", splits=splits)
    ).parts
    assert few.videos == plan.parts[0].videos


def test_hmdbs_unused_videos_are_left_out(tmp_path: Path) -> None:
    """Flag 0 of split 1; EP2 takes 1 and 2, EP3 the 2 of each split."""
    splits, videos = tmp_path / "splits", tmp_path / "videos"
    splits.mkdir()
    for label in class_list("hmdb51"):
        name = label.replace(" ", "_")
        (videos / name).mkdir(parents=True)
        for i in range(4):
            (videos / name / f"a {i}#_u_nm.avi").touch()
        for split in (1, 2, 3):
            flags = [0, 1, 2, 1] if split == 1 else [2, 1, 0, 1]
            lines = [f"a {i}#_u_nm.avi {flag} " for i, flag in enumerate(flags)]
            (splits / f"{name}_test_split{split}.txt").write_text("\n".join(lines))
    ask = EvaluationList(videos=(videos,), protocol="EP2", dataset="hmdb51", splits=splits)
    (part,) = parts(open_plan(ask))
    assert len(part.videos) == 51 * 3
    assert not any("a 0" in path.name for path in part.videos)
    found = read_official_splits("hmdb51", videos=videos, splits=splits)
    assert [{v.path.name[2] for v in test} for test in found.tests] == [{"2"}, {"0"}, {"0"}]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s, _: (s / "testlist01.txt").unlink(), "testlist01.txt: No such file"),
        (lambda s, _: (s / "testlist01.txt").write_text("YoYo"), "line 1: 'YoYo' is no class/vid"),
        (lambda s, _: (s / "testlist01.txt").write_text("YoYo/b.avi"), "no YoYo/b.avi, which"),
        (lambda _, v: v.rmdir(), "a folder with one folder for each class"),
    ],
)
def test_split_files_that_cannot_be_used_are_one_line(
    tmp_path: Path, spoil: Callable[[Path, Path], object], message: str
) -> None:
    """Missing, not understood, or about other videos."""
    splits, videos = ucf_splits(tmp_path / "splits"), tmp_path / "videos"
    videos.mkdir()
    for split in (1, 2, 3):
        (splits / f"trainlist0{split}.txt").write_text("")
    spoil(splits, videos)
    with pytest.raises(Refusal, match=message):
        read_official_splits("ucf101", videos=videos, splits=splits)
