"""From video files to a file of captions, over a kill in the middle, through the command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from tests.training.captioning.tiny_models import SIZE, save_blip2, save_llama
from training.__main__ import main
from training.captioning.frame_captioner import FrameCaptioner
from training.captioning.job import CaptionJob
from training.captioning.pipeline import caption_frames, merge_captions
from training.captioning.records import Records
from training.captioning.summariser import Summariser
from training.data.annotations import read_video_list
from training.data.captions import add_captions, read_captions
from training.data.motion_world.files import write_video
from training.errors import Refusal

FRAMES = 3
NAMES = ("one.mp4", "folder/two.mp4", "three.mp4", "four.mp4")


class Counting:
    """Says how bright pictures are; stops like a killed process when it has seen enough."""

    image_size = SIZE

    def __init__(self, *, pictures: int = 10**6) -> None:
        self.left = pictures
        self.batches: list[int] = []

    def caption(self, pictures: NDArray[np.uint8]) -> list[str]:
        """The mean brightness of each picture."""
        if len(pictures) > self.left:
            raise KeyboardInterrupt
        self.left -= len(pictures)
        self.batches.append(len(pictures))
        return [f"{picture.mean():.1f}" for picture in pictures]


class Joining:
    """Joins what it is given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def merge(self, frame_captions: Sequence[Sequence[str]]) -> list[str]:
        """One text of several."""
        self.batches.append(len(frame_captions))
        return [" ".join(texts).replace("nothing", "") for texts in frame_captions]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of four videos that get brighter, one that is none, and the first one again."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "folder").mkdir()
    for i, name in enumerate(NAMES):
        frames = np.full((6, 48, 64, 3), 30 + 50 * i, dtype=np.uint8)
        frames += (10 * np.arange(6, dtype=np.uint8))[:, None, None, None]
        write_video(folder / name, frames, seconds=1.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    rows = ("path,label", *(f"{name},thing" for name in (*NAMES, "broken.mp4", NAMES[0])))
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder / "list.csv"


def slow_captions(path: Path) -> list[str]:
    """What `Counting` says of the frames of one video, decoded on their own."""
    clip = decode_clips(
        path,
        sampling=Sampling(mode="uniform", frames=FRAMES),
        preprocessing=Preprocessing(image_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1)),
        limits=Limits(),
    )
    return [f"{picture.mean():.1f}" for picture in clip.pixels[0]]


def job(videos: Path, out: Path, **changes: Any) -> CaptionJob:
    """A job; its models are never loaded."""
    values: dict[str, Any] = {"blip2": "none", "language_model": "none", "frames": FRAMES}
    return CaptionJob(videos=videos, out=out, **(values | changes))


@pytest.mark.parametrize(
    ("batch_size", "batches"), [(1, [1] * 12), (4, [3] * 4), (7, [6, 6]), (99, [12])]
)
def test_frames_are_captioned_whatever_the_batches(
    videos: Path, tmp_path: Path, batch_size: int, batches: list[int]
) -> None:
    """Each video gets its own frames' captions, in order; what is no video is a failure."""
    listed = job(videos, tmp_path / "out.jsonl").named_videos()
    assert [name for name, _ in listed] == [*NAMES, "broken.mp4"]
    captioner, done = Counting(), list[int]()
    with Records(tmp_path / "frames.jsonl", field="captions", settings={}) as records:
        failed = caption_frames(
            captioner, listed, records, frames=FRAMES, batch_size=batch_size, on_videos=done.append
        )
        assert [name for name, _ in failed] == ["broken.mp4"]
        assert list(records.done) == list(NAMES)
        for name in NAMES:
            assert records.done[name] == slow_captions(videos.parent / name)
            assert len(set(records.done[name])) == FRAMES
    assert captioner.batches == batches
    assert sum(done) == len(listed)


def test_a_killed_stage_keeps_what_it_had(videos: Path, tmp_path: Path) -> None:
    """Videos that were through before the kill are in the file, whole."""
    listed = job(videos, tmp_path / "out.jsonl").named_videos()
    path = tmp_path / "frames.jsonl"
    with (
        Records(path, field="captions", settings={}) as records,
        pytest.raises(KeyboardInterrupt),
    ):
        caption_frames(Counting(pictures=2 * FRAMES), listed, records, frames=FRAMES, batch_size=3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["path"] for line in lines] == list(NAMES[:2])
    assert all(line["captions"] == slow_captions(videos.parent / line["path"]) for line in lines)


def test_merging_passes_over_what_says_nothing(tmp_path: Path) -> None:
    """Frames without a caption are left out; a video without any, or without an answer, fails."""
    said = {"1": ["a", "", "b"], "2": ["", ""], "3": ["nothing"], "4": ["c"], "5": ["d"]}
    merger = Joining()
    with Records(tmp_path / "captions.jsonl", field="caption", settings={}) as records:
        failed = merge_captions(merger, said, records, batch_size=2)
        assert records.done == {"1": "a b", "4": "c", "5": "d"}
    assert failed == (
        ("2", "none of its frames has a caption"),
        ("3", "the language model wrote nothing"),
    )
    assert merger.batches == [1, 2, 1]


def test_parts_share_the_list_out(videos: Path, tmp_path: Path) -> None:
    """Every video is in one part, each part in the list's order."""
    whole = job(videos, tmp_path / "a.jsonl").named_videos()
    for n in (1, 2, 3, 7):
        parts = [
            job(videos, tmp_path / "a.jsonl", part=f"{i}/{n}").named_videos()
            for i in range(1, n + 1)
        ]
        assert sorted(video for part in parts for video in part) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part": "0/2"}, "part = '0/2': expected I/N"),
        ({"part": "3/2"}, "part = '3/2': expected I/N"),
        ({"part": "half"}, "part = 'half': expected I/N"),
        ({"frames": 0}, "frames = 0: 1 or more"),
        ({"batch_size": -1}, "batch_size = -1: 1 or more"),
        ({"out": Path("captions.csv")}, r"captions\.csv: captions are JSON Lines"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    """The line names the field and the value."""
    with pytest.raises(Refusal, match=message):
        job(Path("list.csv"), **{"out": Path("out.jsonl"), **changes})


def test_the_command_writes_captions_that_training_reads(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both models on real files, stage by stage; then again, where nothing is left to do."""
    blip2, llama = save_blip2(tmp_path / "blip2"), save_llama(tmp_path / "llama")
    out = tmp_path / "captions.jsonl"
    arguments = ["caption", str(videos), str(out), "--blip2", str(blip2)]
    arguments += ["--language-model", str(llama), "--frames", str(FRAMES), "--batch-size", "4"]
    assert main([*arguments, "--only", "frames"]) == 0
    assert not out.exists()
    assert "left out: broken.mp4: " in capsys.readouterr().out
    assert main(arguments) == 0
    assert f"{out}: 4 of 5 videos" in capsys.readouterr().out

    listed = read_video_list(videos)
    joined = add_captions(listed, read_captions(out), where=out)
    captioned = {v.path.name: v.caption for v in joined.videos if v.caption}
    assert set(captioned) == {Path(name).name for name in NAMES}
    captioner, summariser = FrameCaptioner(str(blip2)), Summariser(str(llama))
    for name in NAMES:
        clip = decode_clips(
            videos.parent / name,
            sampling=Sampling(mode="uniform", frames=FRAMES),
            preprocessing=Preprocessing(image_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1)),
            limits=Limits(),
        )
        (expected,) = summariser.merge([captioner.caption(clip.pixels[0])])
        assert captioned[Path(name).name] == expected

    before = out.read_bytes()
    assert main(arguments) == 0
    assert out.read_bytes() == before


def test_the_command_refuses_in_one_line(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No list, no model, other settings than before, nothing to merge: exit code 2."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    blip2 = save_blip2(tmp_path / "blip2")
    out = str(tmp_path / "captions.jsonl")
    known = ["--blip2", str(blip2), "--frames", str(FRAMES)]
    for arguments, message in (
        ([str(tmp_path / "no.csv"), out], "no.csv"),
        ([str(videos), out, *known, "--only", "merge"], "none of 5 videos got a caption"),
        ([str(videos), out, *known], "meta-llama/Llama-2-7b-chat-hf"),
        ([str(videos), out, *known, "--frames", "5"], "begun with frames = 3, not 5"),
        ([str(videos), str(tmp_path / "new.jsonl")], "Salesforce/blip2-flan-t5-xxl"),
    ):
        assert main(["caption", *arguments]) == 2
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert message in lines[0]
