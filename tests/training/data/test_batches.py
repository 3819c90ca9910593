"""Batches of clips from encoded videos: the same for a seed, whoever decodes them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.videoclip.manifest import Preprocessing
from tests.drawn_video import draw_video
from training.config import ConfigError
from training.data.annotations import LabelledVideo, VideoListError
from training.data.augment import AugmentationName
from training.data.batches import RawBatch, batches
from training.data.clip_sampling import ClipMode, ClipSampling
from training.data.dataset import NoVideoDecodesError, VideoSource
from training.evaluate.class_lists import ClassListError

PREPROCESSING = Preprocessing(image_size=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CLASSES = ("cat", "dog", "owl")
COUNT = 7


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledVideo]:
    """Seven videos of different lengths, of three classes; the third has two captions."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        LabelledVideo(
            draw_video(folder / f"{i}.mp4", seconds=0.6 + 0.2 * i, width=64, height=48),
            CLASSES[i % 3],
            *(("one", ("two",)) if i == 2 else ()),
        )
        for i in range(COUNT)
    ]


def source(
    videos: list[LabelledVideo],
    *,
    mode: ClipMode = "random_segments",
    name: AugmentationName = "open-vclip",
    labelled: bool = True,
) -> VideoSource:
    """Clips of three frames of 24 x 24 pixels."""
    return VideoSource(
        videos=videos,
        classes=CLASSES if labelled else None,
        sampling=ClipSampling(mode=mode, frames=3),
        preprocessing=PREPROCESSING,
        augmentation=name,
    )


def assert_equal(one: RawBatch, other: RawBatch) -> None:
    """To the bit, the second source included."""
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.indices, other.indices)
    assert (one.labels is None) == (other.labels is None)
    if one.labels is not None and other.labels is not None:
        assert torch.equal(one.labels, other.labels)
    assert one.captions == other.captions
    assert one.failed == other.failed
    assert (one.unlabelled is None) == (other.unlabelled is None)
    if one.unlabelled is not None and other.unlabelled is not None:
        assert_equal(one.unlabelled, other.unlabelled)


def test_every_pass_shows_every_video_once(videos: list[LabelledVideo]) -> None:
    """Batches reach over the end of a pass; each pass has an order and clips of its own."""
    found = list(batches(source(videos), batch_size=4, seed=1, stop_step=7))  # 28 clips: 4 passes
    assert all(batch.frames.shape == (4, 3, 24, 24, 3) for batch in found)
    assert all(batch.frames.dtype == torch.uint8 for batch in found)
    indices = torch.cat([batch.indices for batch in found]).reshape(4, COUNT)
    assert all(sorted(row) == list(range(COUNT)) for row in indices.tolist())
    assert len({tuple(row) for row in indices.tolist()}) > 1
    frames = torch.cat([batch.frames for batch in found])
    labels = torch.cat([batch.labels for batch in found if batch.labels is not None])
    assert torch.equal(labels, indices.reshape(-1) % 3)
    first = [frames[place] for place in np.flatnonzero(indices.reshape(-1) == 0)]
    assert any(not torch.equal(first[0], clip) for clip in first[1:])


@pytest.mark.parametrize("mode", ["random_segments", "strided"])
def test_a_seed_decides_everything(videos: list[LabelledVideo], mode: ClipMode) -> None:
    """The same seed gives the same batches, another seed others; the world's randomness is left
    alone.
    """
    before = torch.random.get_rng_state()
    one, two, other = (
        list(batches(source(videos, mode=mode), batch_size=3, seed=seed, stop_step=3))
        for seed in (1, 1, 2)
    )
    for left, right in zip(one, two, strict=True):
        assert_equal(left, right)
    assert any(
        not torch.equal(left.frames, right.frames) for left, right in zip(one, other, strict=True)
    )
    assert torch.equal(before, torch.random.get_rng_state())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 9),
    share=st.integers(1, 3),
    world=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_ranks_and_resuming_change_nothing(
    videos: list[LabelledVideo], start: int, share: int, world: int, seed: int
) -> None:
    """From any step on, the parts of all ranks one after the other are the one process's batch."""
    clips = source(videos, name="none")
    size = share * world
    whole = list(batches(clips, batch_size=size, seed=seed, stop_step=start + 1))[start]
    parts = [
        next(batches(clips, batch_size=size, seed=seed, start_step=start, rank=rank, world=world))
        for rank in range(world)
    ]
    assert torch.equal(whole.frames, torch.cat([part.frames for part in parts]))
    assert torch.equal(whole.indices, torch.cat([part.indices for part in parts]))


@pytest.mark.slow
def test_workers_change_nothing(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """Two processes give the batches of none, replaced videos and second source included; and a
    list without one video that decodes is one line, not a page from a worker.
    """
    broken = LabelledVideo(tmp_path / "gone.mp4", "cat")
    labelled, unlabelled = source([*videos, broken]), source(videos, labelled=False, name="fitclip")
    here, there = (
        list(
            batches(
                labelled, batch_size=2, seed=5, start_step=3, stop_step=9, workers=workers,
                unlabelled=unlabelled,
            )
        )
        for workers in (0, 2)
    )  # fmt: skip
    for left, right in zip(here, there, strict=True):
        assert_equal(left, right)
    assert any(batch.failed for batch in here)
    with pytest.raises(NoVideoDecodesError, match=r"^none of 1 videos can be decoded; .*gone.mp4"):
        next(batches(source([broken]), batch_size=1, seed=0, workers=1))


def test_broken_videos_are_told_and_replaced(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """A missing and a damaged file never stop a run: others stand in, with labels of their own."""
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(videos[0].path.read_bytes()[:300])
    bad = [LabelledVideo(tmp_path / "gone.mp4", "dog"), LabelledVideo(damaged, "dog")]
    mixed = source([*videos, *bad])
    found = list(batches(mixed, batch_size=9, seed=0, stop_step=3))
    for batch in found:
        reasons = {failed.path.name: failed.reason for failed in batch.failed}
        assert set(reasons) == {"gone.mp4", "damaged.mp4"}
        assert reasons["gone.mp4"] == "No such file or directory"
        assert "\n" not in reasons["damaged.mp4"]
        assert batch.labels is not None
        assert torch.equal(batch.labels, batch.indices % 3)
        counts = Counter(batch.indices.tolist())
        assert set(counts) == set(range(COUNT))  # of the good ones each is there
        assert sum(counts.values()) == 9
    stand_ins = {tuple(sorted(batch.indices.tolist())) for batch in found}
    assert len(stand_ins) > 1  # not always the same ones


def test_lists_without_a_good_video_are_refused(
    videos: list[LabelledVideo], tmp_path: Path
) -> None:
    """All of a short list, or a hundred in a row of a long one; the first is named and why."""
    gone = [LabelledVideo(tmp_path / f"{i}.mp4", "cat") for i in range(150)]
    with pytest.raises(NoVideoDecodesError, match=r"^none of 40 videos can be decoded; .*No such"):
        next(batches(source(gone[:40]), batch_size=2, seed=0))
    with pytest.raises(NoVideoDecodesError, match=r"^none of 100 drawn out of 150 videos"):
        next(batches(source(gone), batch_size=2, seed=0))
    batch = next(batches(source([*gone[:90], videos[1]]), batch_size=2, seed=0))
    assert batch.indices.tolist() == [90, 90]


def test_two_sources_go_round_each_at_its_own_pace(videos: list[LabelledVideo]) -> None:
    """FitCLIP's batches: labelled and unlabelled clips beside each other; the smaller source begins
    again before the larger one is through.
    """
    few, many = source(videos[:3]), source(videos, labelled=False)
    found = list(batches(few, batch_size=2, seed=3, stop_step=4, unlabelled=many))
    seen, shown = Counter[int](), Counter[int]()
    for batch in found:
        assert batch.unlabelled is not None
        assert batch.unlabelled.labels is None
        assert batch.labels is not None
        shown.update(batch.indices.tolist())
        seen.update(batch.unlabelled.indices.tolist())
    assert set(seen) == set(range(COUNT))
    assert sum(seen.values()) == sum(shown.values()) == 8
    assert set(shown) == {0, 1, 2}


def test_the_second_source_is_drawn_on_its_own(videos: list[LabelledVideo]) -> None:
    """The same list as both sources gives other orders and other clips."""
    both = source(videos)
    found = list(batches(both, batch_size=7, seed=3, stop_step=2, unlabelled=both))
    assert any(
        batch.unlabelled is not None and not torch.equal(batch.indices, batch.unlabelled.indices)
        for batch in found
    )


def test_captions_come_along(videos: list[LabelledVideo]) -> None:
    """A video with several gives one of them at a time, one without gives None; a list without any
    gives no captions at all.
    """
    texts: dict[int, set[str | None]] = {}
    for batch in batches(source(videos), batch_size=7, seed=0, stop_step=12):
        assert batch.captions is not None
        for index, caption in zip(batch.indices.tolist(), batch.captions, strict=True):
            texts.setdefault(index, set()).add(caption)
    assert texts.pop(2) == {"one", "two"}
    assert all(found == {None} for found in texts.values())
    assert next(batches(source(videos[:2]), batch_size=1, seed=0)).captions is None
    without = source([LabelledVideo(video.path, video.label) for video in videos])
    plain, told = (next(batches(each, batch_size=7, seed=0)) for each in (without, source(videos)))
    assert torch.equal(plain.frames, told.frames)  # runs with and without see the same clips


def test_labels_are_matched_by_name_in_any_spelling(videos: list[LabelledVideo]) -> None:
    """The position comes from the name, never from the order of the list; spaces and case may
    differ; a name that is none of the classes is refused with its video.
    """
    named = [LabelledVideo(video.path, "Apply_EyeMakeup") for video in videos[:2]]
    classes = ("zebra", "Apply Eye Makeup")
    clips = VideoSource(
        videos=named, classes=classes, sampling=ClipSampling(frames=1), preprocessing=PREPROCESSING
    )
    batch = next(batches(clips, batch_size=2, seed=0))
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 1]
    with pytest.raises(ClassListError, match=r"0.mp4: 'cat': none of the 2 classes"):
        VideoSource(
            videos=videos[:1],
            classes=classes,
            sampling=ClipSampling(frames=1),
            preprocessing=PREPROCESSING,
        )


def test_what_cannot_be_asked_for_is_refused(videos: list[LabelledVideo]) -> None:
    """Batches that ranks cannot share, more than shared memory holds, no videos, no labels."""
    clips = source(videos)
    with pytest.raises(ConfigError, match="batch_size = 5: not a multiple of 2 processes"):
        batches(clips, batch_size=5, seed=0, world=2)
    with pytest.raises(ConfigError, match=r"workers = 2: .*/dev/shm"):
        batches(clips, batch_size=2**40, seed=0, workers=2)
    with pytest.raises(VideoListError, match="holds no videos"):
        source([])
    with pytest.raises(VideoListError, match=r"0\.mp4: has no label"):
        source([LabelledVideo(videos[0].path)])
