"""Sentences of videos, from lists and from MSR-VTT's own files."""

from pathlib import Path

import pytest

from training.errors import Refusal
from training.evaluate.inputs import EvaluationList, open_plan
from training.evaluate.plan import PairPart, Plan


def pairs_of(plan: Plan) -> list[tuple[str, str]]:
    """(file name, sentence) of a retrieval plan."""
    (part,) = plan.parts
    assert isinstance(part, PairPart)
    return [(part.videos[i].name, text) for i, text in zip(part.video_of, part.texts, strict=True)]


def test_msrvtts_sentences_come_in_two_formats(tmp_path: Path) -> None:
    """JSFusion's CSV, and the first caption of JSON for the ids of a list."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("video7020", "video7021", "video1"):
        (videos / f"{name}.mp4").touch()
    table = tmp_path / "MSRVTT_JSFUSION_test.csv"
    table.write_text(
        "key,vid_key,video_id,sentence\n"
        'ret0,msr9770,video7021,"a woman, creating a fondant baby"\n'
        "ret1,msr9771,video7020,a boy plays grand theft auto 5\n"
    )
    ask = EvaluationList(videos=(videos,), protocol="MSR-VTT", captions=table)
    assert pairs_of(open_plan(ask)) == [
        ("video7021.mp4", "a woman, creating a fondant baby"),
        ("video7020.mp4", "a boy plays grand theft auto 5"),
    ]
    assert open_plan(ask).notes == ("all: 2 videos, the papers have 1000",)
    only = tmp_path / "val_list_jsfusion.txt"
    only.write_text("video7020\nvideo1\n")
    for key, name in (("sentences", "video_id"), ("annotations", "image_id")):
        entries = ", ".join(
            f'{{"{name}": "{video}", "caption": "{text}"}}'
            for video, text in (
                ("video1", "one"), ("video7020", "two"), ("video7020", "three"), ("video9", "x"),
            )
        )  # fmt: skip
        captions = tmp_path / "MSR_VTT.json"
        captions.write_text(f'{{"info": 1, "{key}": [{entries}]}}')
        ask = EvaluationList(videos=(videos,), protocol="MSR-VTT", captions=captions, only=only)
        assert pairs_of(open_plan(ask)) == [("video7020.mp4", "two"), ("video1.mp4", "one")]


def test_a_list_with_captions_is_a_retrieval_set(tmp_path: Path) -> None:
    """A video may have several sentences."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").touch()
    table = tmp_path / "list.csv"
    table.write_text("path,caption\na.mp4,a dog\nb.mp4,a cat\na.mp4,a big dog\n")
    plan = open_plan(EvaluationList(videos=(table,), protocol="retrieval"))
    assert pairs_of(plan) == [("a.mp4", "a dog"), ("b.mp4", "a cat"), ("a.mp4", "a big dog")]


@pytest.mark.parametrize(
    ("name", "text", "only", "message"),
    [
        ("c.csv", "video_id,text\nv,a\n", None, "the column 'sentence' is missing"),
        ("c.csv", "video_id,sentence\nv,\n", None, "line 2: video_id or sentence is empty"),
        ("c.csv", "video_id,sentence\nw,a\n", None, "1 videos are missing, such as 'w'"),
        ("c.csv", "video_id,sentence\n", None, "holds no sentences"),
        ("c.json", "{", None, "not JSON"),
        ("c.json", "{}", None, "neither a list 'sentences' nor a list 'annotations'"),
        ("c.json", '{"sentences": [{"caption": "a"}]}', None, "entry 0: needs 'video_id'"),
        ("c.csv", "video_id,sentence\nv,a\n", "u\n", "no sentence for 'u'"),
    ],
)
def test_sentences_that_cannot_be_used_are_one_line(
    tmp_path: Path, name: str, text: str, only: str | None, message: str
) -> None:
    """It names the file, and the line or entry."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "v.mp4").touch()
    (tmp_path / name).write_text(text)
    if only is not None:
        (tmp_path / "only.txt").write_text(only)
    ask = EvaluationList(
        videos=(videos,),
        protocol="MSR-VTT",
        captions=tmp_path / name,
        only=None if only is None else tmp_path / "only.txt",
    )
    with pytest.raises(Refusal, match=message) as caught:
        open_plan(ask)
    assert "\n" not in str(caught.value)
