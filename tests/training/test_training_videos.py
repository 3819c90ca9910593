"""Clips that a recipe begins with: each video's own, and none in the place of a broken one."""

from pathlib import Path

import pytest

from service.videoclip.manifest import Preprocessing
from tests.training.tiny_run import LABELS, draw_videos
from training.data.annotations import read_video_list
from training.data.clip_sampling import ClipSampling
from training.data.dataset import FailedVideo, NoVideoDecodesError, VideoSource
from training.training_videos import in_order


def source_of(videos: Path) -> VideoSource:
    """The listed videos, as they are served."""
    return VideoSource(
        videos=read_video_list(videos),
        classes=LABELS,
        sampling=ClipSampling(mode="uniform", frames=2),
        preprocessing=Preprocessing(image_size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_broken_video_is_left_out_and_told(tmp_path: Path, batch_size: int) -> None:
    """No other video stands in its place: every label is that of the clip, and counts once."""
    source = source_of(draw_videos(tmp_path, count=4, broken=3))
    failed: list[FailedVideo] = []
    found = list(in_order(source, batch_size=batch_size, seed=0, on_failure=failed.append))
    places = [int(place) for raw in found for place in raw.indices]
    assert places == [0, 1, 2, 3]
    labels = [int(label) for raw in found if raw.labels is not None for label in raw.labels]
    assert labels == source.labels[:4].tolist()
    # Bright squares are bright: pixels and labels belong together.
    bright = [float(clip.float().mean()) > 128 for raw in found for clip in raw.frames]
    assert bright == [label == 1 for label in labels]
    assert [each.path.name for each in failed] == ["4.mp4", "5.mp4", "6.mp4"]
    assert all(each.reason for each in failed)


def test_nothing_that_decodes_is_an_error(tmp_path: Path) -> None:
    """It names the first video and why."""
    source = source_of(draw_videos(tmp_path, count=0, broken=2))
    with pytest.raises(NoVideoDecodesError, match=r"none of 2 examples .*0\.mp4"):
        list(in_order(source, batch_size=2, seed=0, on_failure=lambda _: None))
