"""Text4Vis's choice of frames: the first picture of each part of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.preprocessing import resize_crop
from service.videoclip.sampling import Timeline, frames_on_screen, plan, segment_start_times
from tests.service.videoclip.films import decode_naively, write_film
from tests.service.videoclip.test_sampling import constant_rate, timelines

counts = st.integers(1, 64)


@given(count=st.integers(1, 400), frames=counts, fps=st.sampled_from([8.0, 25.0, 29.97]))
def test_they_are_the_pictures_that_the_authors_code_takes(
    count: int, frames: int, fps: float
) -> None:
    """Of N pictures those numbered int(k * N / T), at any rate, short videos included."""
    timeline = constant_rate(count, fps=fps)
    times = plan(Sampling(mode="segment_starts", frames=frames), timeline)
    found = frames_on_screen(times, timeline.pts_seconds)
    assert found.tolist() == [[k * count // frames for k in range(frames)]]


@given(
    timeline=timelines(), frames=counts, start_share=st.floats(0, 0.99), length=st.floats(1e-6, 99)
)
def test_they_lie_in_the_range_or_just_before_it(
    timeline: Timeline, frames: int, start_share: float, length: float
) -> None:
    """Ascending times of pictures; of a range without a picture, the one on screen in it."""
    start = timeline.end_seconds * start_share
    times = segment_start_times(start, start + length, frames=frames, timeline=timeline)
    pts = timeline.pts_seconds
    assert times.shape == (frames,)
    assert np.all(np.diff(times) >= 0)
    assert np.all(np.isin(times, pts))
    assert np.all(times < start + length)
    before = pts[frames_on_screen(np.array([start]), pts)[0]]
    assert np.all(times >= before)


def test_the_service_decodes_them_and_cuts_from_a_larger_picture(tmp_path: Path) -> None:
    """A file with these settings: pictures 0, 22, 45 and 67 of 90, the middle 32 of 37 pixels."""
    film = write_film(tmp_path / "film.mp4", pts=[40 * number for number in range(90)])
    preprocessing = Preprocessing(
        image_size=32,
        resize_size=37,
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    sampling = Sampling(mode="segment_starts", frames=4)
    clip = decode_clips(film, sampling=sampling, preprocessing=preprocessing, limits=Limits())
    _, pictures = decode_naively(film)
    assert clip.times_seconds[0].tolist() == pytest.approx([0.0, 0.88, 1.8, 2.68])
    for found, number in zip(clip.pixels[0], (0, 22, 45, 67), strict=True):
        expected = resize_crop(pictures[number], preprocessing).astype(int)
        assert np.abs(found - expected).max() <= 3  # the two ways to RGB round differently
