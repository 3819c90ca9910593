"""Decoded pictures on disk: the same clips as from the files, within a limit, written once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from service.videoclip.manifest import Preprocessing
from service.videoclip.sampling import Timeline, Times
from tests.drawn_video import draw_video
from training.data.annotations import LabelledVideo
from training.data.augment import AugmentationName
from training.data.batches import RawBatch, batches
from training.data.clip_sampling import ClipMode, ClipSampling
from training.data.dataset import VideoSource
from training.data.frame_cache import FrameCache, FrameCacheError, open_frame_cache

PREPROCESSING = Preprocessing(image_size=28, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledVideo]:
    """Three videos of 9, 15 and 21 pictures, 64 x 48."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        LabelledVideo(
            draw_video(folder / f"{i}.mp4", seconds=0.6 + 0.4 * i, width=64, height=48), "cat"
        )
        for i in range(3)
    ]


def clips(
    videos: list[LabelledVideo],
    cache: FrameCache | None,
    *,
    mode: ClipMode = "strided",
    name: AugmentationName = "open-vclip",
) -> list[RawBatch]:
    """Three batches."""
    source = VideoSource(
        videos=videos,
        classes=("cat",),
        sampling=ClipSampling(mode=mode, frames=4),
        preprocessing=PREPROCESSING,
        augmentation=name,
        cache=cache,
    )
    return list(batches(source, batch_size=4, seed=2, stop_step=3))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (mode, name)
        for mode in ("strided", "random_segments", "uniform", "segment_starts")
        for name in ("none", "open-vclip")
    ],
)
def test_a_cache_changes_nothing(
    videos: list[LabelledVideo], tmp_path: Path, mode: ClipMode, name: AugmentationName
) -> None:
    """With all pictures at their own size clips are the same to the bit; augmentation is random."""
    cache = open_frame_cache(tmp_path, videos, shorter_side=48)
    one, two = (clips(videos, each, mode=mode, name=name) for each in (None, cache))
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.frames, right.frames)
        assert torch.equal(left.indices, right.indices)


def test_a_cache_is_written_once(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """The same files and settings find it again, two at once write it once; a changed file, list
    or setting makes another.
    """
    with ThreadPoolExecutor(2) as pool:
        for task in [
            pool.submit(open_frame_cache, tmp_path, videos, shorter_side=48) for _ in range(2)
        ]:
            task.result()
    (folder,) = (each for each in tmp_path.iterdir() if each.is_dir())
    written = (folder / "pictures.u8").stat().st_mtime_ns
    open_frame_cache(tmp_path, videos, shorter_side=48)
    assert (folder / "pictures.u8").stat().st_mtime_ns == written

    def caches() -> int:
        return sum(each.is_dir() for each in tmp_path.iterdir())

    open_frame_cache(tmp_path, videos, shorter_side=40)
    open_frame_cache(tmp_path, videos[:2], shorter_side=48)
    open_frame_cache(tmp_path, videos, shorter_side=48, pictures=2)
    assert caches() == 4
    draw_video(videos[0].path, seconds=0.4, width=64, height=48)
    try:
        open_frame_cache(tmp_path, videos, shorter_side=48)
        assert caches() == 5
    finally:
        draw_video(videos[0].path, seconds=0.6, width=64, height=48)


def test_what_a_killed_writing_left_is_removed(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """Half of the pictures of this very cache; other caches stay, also half ones: they may grow."""
    open_frame_cache(tmp_path / "first", videos, shorter_side=48)
    (name,) = (each.name for each in (tmp_path / "first").iterdir() if each.is_dir())
    for left in (f"{name}.abc", "other.abc"):
        (tmp_path / "second" / left).mkdir(parents=True)
        (tmp_path / "second" / left / "pictures.u8").write_bytes(b"half")
    open_frame_cache(tmp_path / "second", videos, shorter_side=48)
    found = {each.name for each in (tmp_path / "second").iterdir() if each.is_dir()}
    assert found == {name, "other.abc"}


def test_processes_write_the_same_bytes(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """Two processes decode what one decodes."""
    for processes in (1, 2):
        open_frame_cache(tmp_path / str(processes), videos, shorter_side=30, processes=processes)
    one, two = sorted(tmp_path.glob("*/*/pictures.u8"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size == 45 * 30 * 40 * 3  # 9 + 15 + 21 pictures of 40 x 30


def test_what_does_not_fit_is_refused_before_it_is_written(
    videos: list[LabelledVideo], tmp_path: Path
) -> None:
    """The line says how much it would be, the limit, and how many pictures would fit."""
    picture = 64 * 48 * 3
    message = r"3 videos takes 0.4 MiB, and the limit is 0.1 MiB; at most 5 pictures of each"
    with pytest.raises(FrameCacheError, match=message):
        open_frame_cache(tmp_path, videos, shorter_side=48, limit_bytes=17 * picture)
    assert not any(each.is_dir() for each in tmp_path.iterdir())
    open_frame_cache(tmp_path, videos, shorter_side=48, limit_bytes=17 * picture, pictures=5)
    with pytest.raises(FrameCacheError, match="nothing would fit"):
        open_frame_cache(tmp_path, videos, shorter_side=48, limit_bytes=5)
    with pytest.raises(FrameCacheError, match="a cache of no videos"):
        open_frame_cache(tmp_path, [], shorter_side=48)


def test_of_a_long_video_the_nearest_picture_held_is_taken(
    videos: list[LabelledVideo], tmp_path: Path
) -> None:
    """Three of 21 pictures are held, evenly spread; each moment shows the nearest of them."""
    whole = open_frame_cache(tmp_path, videos, shorter_side=48)
    thin = open_frame_cache(tmp_path, videos, shorter_side=48, pictures=3)
    path = videos[2].path

    def at(numbers: list[int]) -> Iterator[Times]:
        def plan(timeline: Timeline) -> Times:
            assert len(timeline.pts_seconds) == 21
            return timeline.pts_seconds[numbers][None]

        for cache in (whole, thin):
            yield np.stack(cache.pictures(path, plan)).astype(np.float64)

    all_of_them, held = at([3, 10, 17])  # the middles of three parts
    np.testing.assert_array_equal(all_of_them, held)
    _, found = at([0, 6, 7, 13, 20])
    np.testing.assert_array_equal(found, held[[0, 0, 1, 1, 2]])


def test_large_pictures_are_shrunk_and_not_cut(tmp_path: Path) -> None:
    """The shorter side becomes the one asked for; the other keeps the shape; small ones stay."""
    large = LabelledVideo(draw_video(tmp_path / "1.mp4", seconds=0.2, width=160, height=80))
    small = LabelledVideo(draw_video(tmp_path / "2.mp4", seconds=0.2, width=30, height=20))
    cache = open_frame_cache(tmp_path / "cache", [large, small], shorter_side=40)

    def first(timeline: Timeline) -> Times:
        return timeline.pts_seconds[:1][None]

    assert cache.pictures(large.path, first)[0].shape == (40, 80, 3)
    assert cache.pictures(small.path, first)[0].shape == (20, 30, 3)


def test_broken_videos_are_told_and_replaced(videos: list[LabelledVideo], tmp_path: Path) -> None:
    """What cannot be decoded is listed with its reason, and others stand in its place."""
    gone = LabelledVideo(tmp_path / "gone.mp4", "cat")
    cache = open_frame_cache(tmp_path / "cache", [*videos, gone], shorter_side=48)
    assert cache.failed == {gone.path: "No such file or directory"}
    found = clips([*videos, gone], cache)
    assert {failed.path for batch in found for failed in batch.failed} == {gone.path}
    assert all(int(index) < 3 for batch in found for index in batch.indices)
