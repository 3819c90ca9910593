"""Training clips: the moments that each paper's sampler would take."""

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.manifest import Sampling
from service.videoclip.sampling import Timeline, frames_on_screen, plan
from training.config import ConfigError
from training.data.clip_sampling import OPEN_VCLIP_STRIDE_SECONDS, ClipMode, ClipSampling


def timeline(pictures: int, *, fps: float = 30.0) -> Timeline:
    """A video of a constant rate."""
    return Timeline(
        pts_seconds=np.arange(pictures) / fps,
        end_seconds=pictures / fps,
        keyframe=np.ones(pictures, dtype=bool),
    )


def numbers(sampling: ClipSampling, video: Timeline, *, seed: int) -> list[int]:
    """Which pictures a drawn clip shows."""
    times = sampling.draw(np.random.default_rng(seed))(video)
    assert times.shape == (1, sampling.frames)
    shown: list[int] = frames_on_screen(times[0], video.pts_seconds).tolist()
    return shown


@given(
    mode=st.sampled_from(get_args(ClipMode)),
    frames=st.integers(1, 33),
    pictures=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)
def test_every_clip_is_in_the_video_and_in_order(
    mode: ClipMode, frames: int, pictures: int, seed: int
) -> None:
    """Times ascend and lie in the video, however short; the same plan answers the same twice."""
    video = timeline(pictures, fps=7.0)
    drawn = ClipSampling(mode=mode, frames=frames).draw(np.random.default_rng(seed))
    times = drawn(video)[0]
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    assert times[-1] < video.end_seconds
    np.testing.assert_array_equal(times, drawn(video)[0])


@given(frames=st.integers(1, 16), length=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_random_segments_take_one_picture_of_each_part(frames: int, length: int, seed: int) -> None:
    """With T * n pictures, picture i is one of i * n to i * n + n - 1 (ViFi-CLIP as coded)."""
    shown = numbers(ClipSampling(frames=frames), timeline(frames * length), seed=seed)
    assert [number // length for number in shown] == list(range(frames))


def test_random_segments_take_every_picture_of_a_part_equally_often() -> None:
    """1,000 clips of two parts of five pictures show each about 200 times."""
    shown = [numbers(ClipSampling(frames=2), timeline(10), seed=seed) for seed in range(1000)]
    counts = np.bincount(list(itertools.chain.from_iterable(shown)), minlength=10)
    assert np.all(np.abs(counts - 200) < 60)


def test_strided_clips_are_open_vclips_from_any_beginning() -> None:
    """300 pictures at 30 a second: steps as simulated from the released code, all beginnings."""
    steps = [0, 18, 36, 54, 72, 90, 108, 112]  # the released code's, from its beginning
    sampling = ClipSampling(mode="strided", frames=8)
    begins = set()
    for seed in range(400):
        shown = numbers(sampling, timeline(300), seed=seed)
        begins.add(shown[0])
        assert [number - shown[0] for number in shown] == steps
    assert min(begins) < 5
    assert 180 < max(begins) <= 300 - 112
    assert len(begins) > 150


def test_exactly_strided_clips_are_those_of_the_paper() -> None:
    """8 pictures, 16 apart at 30 a second, from any beginning that leaves room for them."""
    sampling = ClipSampling(mode="strided_exact", frames=8)
    begins = set()
    for seed in range(400):
        shown = numbers(sampling, timeline(300), seed=seed)
        begins.add(shown[0])
        assert [number - shown[0] for number in shown] == [16 * i for i in range(8)]
    assert min(begins) < 5
    assert 180 < max(begins) <= 300 - 112
    short = numbers(sampling, timeline(60), seed=1)
    assert short == [0, 16, 32, 48, 59, 59, 59, 59]
    slower = ClipSampling(mode="strided_exact", frames=3, stride_seconds=0.5)
    assert np.diff(numbers(slower, timeline(9, fps=4.0), seed=0)).tolist() == [2, 2]


def test_strided_clips_of_short_videos_repeat_the_last_picture() -> None:
    """60 pictures: 0, 18, 36, 54, 59, 59, 59, 59, as the released code gives."""
    shown = numbers(ClipSampling(mode="strided", frames=8), timeline(60), seed=1)
    assert shown == [0, 18, 36, 54, 59, 59, 59, 59]


def test_what_is_not_random_is_what_is_served() -> None:
    """uniform and segment_starts take the pictures that the manifest's modes of that name take."""
    video = timeline(101, fps=24.0)
    for mode in ("uniform", "segment_starts"):
        served = plan(Sampling(mode=mode, frames=8), video)
        drawn = ClipSampling(mode=mode, frames=8).draw(np.random.default_rng(0))(video)
        np.testing.assert_array_equal(drawn, served)


def test_the_first_test_clip_is_a_training_clip() -> None:
    """A training clip that begins at 0 is the first of the three that are served."""
    served = plan(
        Sampling(mode="strided", frames=8, views=3, stride_seconds=OPEN_VCLIP_STRIDE_SECONDS),
        timeline(300),
    )
    expected = frames_on_screen(served[0], timeline(300).pts_seconds).tolist()
    found = [numbers(ClipSampling(mode="strided"), timeline(300), seed=s) for s in range(400)]
    assert expected in found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": 0}, "frames = 0"),
        ({"stride_seconds": 0.5}, "for the modes 'strided'"),
        ({"mode": "strided", "stride_seconds": 0.0}, "not above 0"),
    ],
)
def test_values_that_do_not_go_along_are_refused(given: dict[str, object], message: str) -> None:
    """A stride belongs to strided clips, and numbers are above 0."""
    with pytest.raises(ConfigError, match=message):
        ClipSampling(**given)  # type: ignore[arg-type]
