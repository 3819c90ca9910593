"""Lists of videos in every format, and what is said about those that cannot be used."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.annotations import (
    LabelledVideo,
    VideoList,
    VideoListError,
    classes_of,
    read_video_list,
)
from training.data.list_formats import read_label_names
from training.errors import Refusal
from training.evaluate.class_lists import class_list, match, read_class_list


def write(path: Path, text: str) -> Path:
    """A file in folders that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def words(videos: list[LabelledVideo], root: Path) -> list[tuple[str, str | None, str | None]]:
    """Path, label and caption of each video."""
    return [(v.path.relative_to(root).as_posix(), v.label, v.caption) for v in videos]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label,caption\nx/1.mp4,a cat,It sits.\nx/2.mp4,a dog,\n"),
        ("a.tsv", "label\tpath\tcaption\na cat\tx/1.mp4\tIt sits.\na dog\tx/2.mp4\t\n"),
        (
            "a.json",
            '[{"path": "x/1.mp4", "label": "a cat", "caption": "It sits."},'
            ' {"path": "x/2.mp4", "label": "a dog"}]',
        ),
        (
            "a.jsonl",
            '{"path": "x/1.mp4", "label": "a cat", "caption": ["It sits."]}\n\n'
            '{"path": "x/2.mp4", "label": "a dog", "caption": null}\n',
        ),
    ],
)
def test_words_come_out_alike_of_every_format(tmp_path: Path, name: str, text: str) -> None:
    """CSV, TSV, JSON and JSON Lines give the same videos, labels and captions."""
    videos = read_video_list(write(tmp_path / name, text))
    assert words(videos, tmp_path) == [
        ("x/1.mp4", "a cat", "It sits."),
        ("x/2.mp4", "a dog", None),
    ]
    assert classes_of(videos) == ("a cat", "a dog")


def test_an_object_of_paths_and_labels_is_a_list(tmp_path: Path) -> None:
    """JSON of the form path -> label is read, too."""
    videos = read_video_list(write(tmp_path / "a.json", '{"1.mp4": "cat", "2.mp4": "dog"}'))
    assert [video.label for video in videos] == ["cat", "dog"]


def test_several_captions_of_a_video_are_kept(tmp_path: Path) -> None:
    """A list of captions gives the first one and the others."""
    items = json.dumps([{"path": "1.mp4", "caption": ["one", "two", "three"]}])
    (video,) = read_video_list(write(tmp_path / "a.json", items), labelled=False)
    assert (video.caption, video.more_captions) == ("one", ("two", "three"))
    assert video.captions == ("one", "two", "three")


def test_text_keeps_its_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    """What CSV quotes, and line ends that only Unicode knows, stay in a caption."""
    caption = 'A "dog", running\u2028on grass'
    quoted = caption.replace('"', '""')
    path = write(tmp_path / "a.csv", f'path,label,caption\r\n1.mp4,dog,"{quoted}"\r\n')
    assert read_video_list(path)[0].caption == caption


def test_a_folder_of_folders_is_a_folder_of_classes(tmp_path: Path) -> None:
    """Each folder is a class; hidden files are none; a flat folder has no labels."""
    for name in ("dog/2.mp4", "cat/1.mp4", "dog/.hidden"):
        write(tmp_path / "set" / name, "")
    videos = read_video_list(tmp_path / "set")
    assert words(videos, tmp_path) == [
        ("set/cat/1.mp4", "cat", None),
        ("set/dog/2.mp4", "dog", None),
    ]
    flat = read_video_list(tmp_path / "set" / "cat", labelled=False)
    assert flat == [LabelledVideo(tmp_path / "set" / "cat" / "1.mp4")]
    with pytest.raises(VideoListError, match="one for each class"):
        read_video_list(tmp_path / "set" / "cat")


def test_kinetics_files_are_found_by_their_id(tmp_path: Path) -> None:
    """With times in the name or without, in a folder of the class or not; the split is chosen."""
    videos = tmp_path / "videos"
    for name in ("abcdefghijk_000005_000015.mp4", "riding_a_bike/zyxwvutsrqp.mkv"):
        write(videos / name, "")
    path = write(
        tmp_path / "k400.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "juggling,abcdefghijk,5,15,train,0\n"
        "riding a bike,zyxwvutsrqp,0.0,10.0,train,0\n"
        "juggling,gone0000000,7,17,train,0\n"
        "juggling,otherother0,7,17,validate,0\n",
    )
    listed = VideoList(path=path, root=videos, split="train").read()
    assert words(listed, videos) == [
        ("abcdefghijk_000005_000015.mp4", "juggling", None),
        ("riding_a_bike/zyxwvutsrqp.mkv", "riding a bike", None),
        ("gone0000000_000007_000017", "juggling", None),
    ]
    with pytest.raises(VideoListError, match="'val'; there are train, validate"):
        read_video_list(path, split="val")


def test_webvid_rows_are_captions(tmp_path: Path) -> None:
    """WebVid's columns give a file in its page folder and a caption, without a label."""
    write(tmp_path / "p1" / "7.mp4", "")
    text = "videoid,contentUrl,duration,page_dir,name\n7,none,PT1S,p1,A boat at sea\n"
    (video,) = read_video_list(write(tmp_path / "w.csv", text), labelled=False)
    assert words([video], tmp_path) == [("p1/7.mp4", None, "A boat at sea")]


def test_numbers_are_named_by_the_file_that_belongs_to_the_list(tmp_path: Path) -> None:
    """Text with or without numbers of frames, and CSV without a head, through CSV or JSON names."""
    names = write(tmp_path / "labels.csv", "id,name\n0,cat\n1,dog\n")
    as_json = write(tmp_path / "labels.json", '{"0": "cat", "1": "dog"}')
    for file, text in (
        ("a.txt", "my cat 1.mp4 77 0\nb/2.mp4 80 1\n"),
        ("b.txt", "my cat 1.mp4 0\nb/2.mp4 1\n"),
        ("c.csv", "my cat 1.mp4,0\nb/2.mp4,1\n"),
        ("d.csv", "path,label\nmy cat 1.mp4,0\nb/2.mp4,1\n"),
        ("e.json", '[{"path": "my cat 1.mp4", "label": 0}, {"path": "b/2.mp4", "label": 1}]'),
    ):
        path = write(tmp_path / file, text)
        for labels in (names, as_json):
            listed = read_video_list(path, labels=labels)
            assert words(listed, tmp_path) == [
                ("my cat 1.mp4", "cat", None),
                ("b/2.mp4", "dog", None),
            ]
        with pytest.raises(VideoListError, match=r"the label 0 is a number.*id,name"):
            read_video_list(path)


def test_a_number_that_contradicts_the_folder_is_refused(tmp_path: Path) -> None:
    """HMDB's two numberings: a list with the other one's names is caught at its first video."""
    ours = write(tmp_path / "ours.csv", "id,name\n0,kick ball\n1,kick\n2,run\n")
    theirs = write(tmp_path / "theirs.csv", "id,name\n0,kick\n1,kick ball\n2,run\n")
    path = write(tmp_path / "a.txt", "run/1 9 2\nkick_ball/2 9 0\nkick/3 9 1\nmisc/4 9 2\n")
    assert [v.label for v in read_video_list(path, labels=ours)] == [
        "run",
        "kick ball",
        "kick",
        "run",
    ]
    with pytest.raises(VideoListError, match=r"a.txt, line 2: label 0 is 'kick'.*'kick_ball'"):
        read_video_list(path, labels=theirs)


def test_the_suffix_in_a_list_need_not_be_the_files(tmp_path: Path) -> None:
    """A missing or another suffix of videos is completed, other dots and files are not."""
    for name in ("v/a.b.mp4", "v/c.avi", "v/c.txt", "v/two.mp4", "v/two.mkv"):
        write(tmp_path / name, "")
    path = write(tmp_path / "a.csv", "path,label\nv/a.b,x\nv/c.mp4,x\nv/gone.mp4,x\n")
    videos = read_video_list(path)
    assert [v.path.name for v in videos] == ["a.b.mp4", "c.avi", "gone.mp4"]
    with pytest.raises(Refusal, match=r"two.mkv and two.mp4 are both there"):
        read_video_list(write(tmp_path / "b.csv", "path,label\nv/two,x\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "line 1: the column 'path' is missing"),
        ("a.csv", "file,class\n1.mp4,cat\n", "'path' is missing.*found file,class"),
        ("a.csv", "path,label\n", "holds no videos"),
        ("a.csv", "path,caption\n1.mp4,hello\n", "1.mp4 has no label"),
        ("a.csv", "path,label\n1.mp4,cat\n\n,dog\n", "line 4: path is empty"),
        ("a.csv", "path,label\n1.mp4,\n", "line 2: label is empty"),
        ("a.csv", "path,label\n1.mp4,cat,extra\n", "line 2: 3 fields, and the head has 2"),
        ("a.csv", 'path,label\n1.mp4,"cat" or so\n', "line 2: not CSV"),
        ("a.csv", "1.mp4,0\n2.mp4,cat\n", "line 2: expected a path and a label's number"),
        ("a.csv", "youtube_id,time_start,time_end\nx,soon,15\n", "line 2: time_start 'soon'"),
        ("a.csv", "youtube_id,time_start,time_end\nx,inf,15\n", "line 2: time_start 'inf'"),
        ("a.txt", "a/1 20 0\na/2 none\n", "line 2: 'a/2 none' has no number of a label"),
        ("a.txt", "a/1\na/2\n", "1 has no label"),
        ("a.json", "{", "line 1: not JSON"),
        ("a.json", "3", "expected a list of objects with 'path'"),
        ("a.json", '[{"label": "cat"}]', "item 1: expected an object with a 'path'"),
        (
            "a.json",
            '[{"path": "1.mp4", "label": ["cat"]}]',
            r"item 1: the label \['cat'\] is no text",
        ),
        ("a.json", '[{"path": "1.mp4", "caption": [1]}]', "item 1: 'caption' is no text"),
        ("a.json", '[{"path": "1.mp4", "split": 1}]', "item 1: the split 1 is no text"),
        ("a.jsonl", '{"path": "1.mp4", "label": "cat"}\n{"path"\n', "line 2: not JSON"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    """A refusal names the file, the line or item, and the value."""
    path = write(tmp_path / name, text)
    with pytest.raises(VideoListError, match=message) as caught:
        read_video_list(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_files_that_are_not_there_or_not_text_are_one_line(tmp_path: Path) -> None:
    """A missing list and a binary one are refused by name."""
    with pytest.raises(VideoListError, match=r"none.csv: No such file"):
        read_video_list(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"path,label\n\xff\xfe")
    with pytest.raises(VideoListError, match=r"binary.csv: not a text in UTF-8"):
        read_video_list(tmp_path / "binary.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n0,cat\n0,dog\n", "line 3: 0, 'dog' is there twice"),
        ("id,name\n0,cat\n1,cat\n", "line 3: 1, 'cat' is there twice"),
        ("id,name\nzero,cat\n", "line 2: 'zero', 'cat' is no number and name"),
        ("name\ncat\n", "the column 'id' is missing"),
        ("id,name\n", "holds no names"),
    ],
)
def test_names_of_numbers_are_checked(tmp_path: Path, text: str, message: str) -> None:
    """A label's number or name that is there twice, or is none, is refused."""
    with pytest.raises(VideoListError, match=message):
        read_label_names(write(tmp_path / "labels.csv", text))


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    """A list's number that its file of labels does not have is named with its line."""
    labels = write(tmp_path / "labels.csv", "id,name\n0,cat\n")
    with pytest.raises(VideoListError, match=r"a.txt, line 2: label 1 is not in .*labels.csv"):
        read_video_list(write(tmp_path / "a.txt", "1 9 0\n2 9 1\n"), labels=labels)


@pytest.mark.parametrize(
    ("dataset", "labels", "counts"),
    [
        ("ucf101", "ucf_labels.csv", (3783, 3734, 3696)),
        ("hmdb51", "hmdb51_labels.csv", (1530, 1530, 1530)),
    ],
)
def test_the_split_lists_of_text4vis_are_read(
    shared_data: Callable[[str], Path], dataset: str, labels: str, counts: tuple[int, ...]
) -> None:
    """The official test splits: as many videos as published, and labels of all classes."""
    folder = shared_data("labels/text4vis")
    for split, count in enumerate(counts, start=1):
        path = folder / dataset / f"val_rgb_split_{split}.txt"
        videos = read_video_list(path, root=Path("/videos"), labels=folder / labels)
        assert len(videos) == count
        known = match(classes_of(videos), class_list(dataset), where=dataset)
        assert set(known.values()) == set(class_list(dataset))
        # The label is the folder's name, in another spelling.
        folders = match({v.path.parent.name for v in videos}, class_list(dataset), where=dataset)
        assert all(folders[v.path.parent.name] == known[v.class_name] for v in videos)


def test_another_data_sets_names_do_not_pass_for_hmdbs(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """HMDB's list with its names in the order of the split files, as ViFi-CLIP numbers them."""
    folder = shared_data("labels/text4vis")
    names = sorted(
        read_label_names(folder / "hmdb51_labels.csv").values(),
        key=lambda name: f"{name.replace(' ', '_')}_test_split1.txt",
    )
    text = "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names))
    other = write(tmp_path / "sorted.csv", text)
    read_video_list(folder / "hmdb51" / "val_rgb_split_1.txt", labels=folder / "hmdb51_labels.csv")
    with pytest.raises(VideoListError, match="list and names do not belong together"):
        read_video_list(folder / "hmdb51" / "val_rgb_split_1.txt", labels=other)


def test_every_file_of_labels_there_is_can_be_read(shared_data: Callable[[str], Path]) -> None:
    """Kinetics, ActivityNet (CSV and JSON alike), UCF, HMDB; plain names are names, not numbers."""
    folder = shared_data("labels/text4vis")
    counts = {
        "kinetics_400_labels.csv": 400,
        "ucf_labels.csv": 101,
        "hmdb51_labels.csv": 51,
        "anet1.3_labels.csv": 200,
        "anet/anet1.3_label2name.json": 200,
        **{f"k600/k160_labels_split{split}.csv": 160 for split in (1, 2, 3)},
    }
    for name, count in counts.items():
        assert sorted(read_label_names(folder / name)) == list(range(count)), name
    assert read_label_names(folder / "anet1.3_labels.csv") == read_label_names(
        folder / "anet/anet1.3_label2name.json"
    )
    plain = shared_data("labels/fitclip/clip_ucf101.txt")
    with pytest.raises(VideoListError, match="'id' is missing"):
        read_label_names(plain)
    spelled = match(read_class_list(plain), class_list("ucf101"), where="ucf101")
    assert Counter(spelled.values()) == Counter(class_list("ucf101"))
