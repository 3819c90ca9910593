"""Which clips of a video are measured when several views are asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.sampling import Timeline, frames_on_screen, plan
from training.evaluate.clip_plans import clip_plan, sparse_times
from training.evaluate.model import Way
from training.evaluate.model_folder import ModelError, other_way


def timeline(pictures: int, *, fps: float = 30.0) -> Timeline:
    """A video of a constant rate."""
    return Timeline(
        pts_seconds=np.arange(pictures) / fps,
        end_seconds=pictures / fps,
        keyframe=np.ones(pictures, dtype=bool),
    )


def way(**sampling: Any) -> Way:
    """A model that is shown these clips."""
    return Way(
        sampling=Sampling(**sampling),
        preprocessing=Preprocessing(image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        pooling="mean_then_normalize",
        template_set="vifi-clip",
    )


@given(
    views=st.integers(1, 12),
    frames=st.integers(1, 33),
    start=st.floats(0.0, 100.0),
    length=st.floats(0.01, 1000.0),
    name=st.text(max_size=20),
)
def test_every_sparse_view_shows_one_moment_of_each_part(
    views: int, frames: int, start: float, length: float, name: str
) -> None:
    """It ascends, reaches over the whole video, and is the same again; fewer are the first."""
    end = start + length
    times = sparse_times(start, end, views=views, frames=frames, name=name)
    assert times.shape == (views, frames)
    assert np.all((times >= start) & (times < end))
    edges = start + length * np.arange(frames + 1) / frames
    noise = 1e-9 * max(1.0, end)
    assert np.all((times >= edges[:-1] - noise) & (times <= edges[1:] + noise))
    assert np.all(np.diff(times, axis=1) >= 0)
    again = sparse_times(start, end, views=views, frames=frames, name=name)
    np.testing.assert_array_equal(times, again)
    fewer = sparse_times(start, end, views=1, frames=frames, name=name)
    np.testing.assert_array_equal(times[:1], fewer)


def test_sparse_views_differ_from_each_other_and_between_videos() -> None:
    """Every picture of a part is shown about equally often, over many videos and views."""
    shown = [
        frames_on_screen(row, timeline(20, fps=5.0).pts_seconds)
        for number in range(250)
        for row in sparse_times(0.0, 4.0, views=4, frames=4, name=f"{number}.mp4")
    ]
    parts = np.stack(shown)
    assert np.array_equal(parts // 5, np.broadcast_to(np.arange(4), parts.shape))
    counts = np.bincount(parts.ravel(), minlength=20)
    assert np.all(np.abs(counts - 200) < 60)
    with pytest.raises(ValueError, match="views: 0"):
        sparse_times(0.0, 1.0, views=0, frames=1, name="a")


@pytest.mark.parametrize("mode", ["uniform", "segment_starts"])
def test_a_sparse_model_stays_sparse(mode: str) -> None:
    """One view is its own clip, unchanged; four reach over the video, none is a dense window."""
    own = way(mode=mode, frames=8)
    assert other_way(own, views=1) == own
    assert other_way(own) == own
    video = timeline(3000)
    np.testing.assert_array_equal(own.clip_plan(Path("b/a.mp4"))(video), plan(own.sampling, video))
    four = other_way(own, views=4)
    assert four.sampling == own.sampling
    assert four.views == 4
    times = four.clip_plan(Path("b/a.mp4"))(video)
    np.testing.assert_array_equal(times, sparse_times(0.0, 100.0, views=4, frames=8, name="a.mp4"))
    assert np.all(times[:, -1] - times[:, 0] > 70.0)
    np.testing.assert_array_equal(times, four.clip_plan(Path("elsewhere/a.mp4"))(video))


def test_a_strided_model_stays_strided() -> None:
    """With its own stride, spread over the video."""
    own = way(mode="strided", frames=8, views=3, stride_seconds=0.25)
    for views in (1, 3, 5):
        found = other_way(own, views=views)
        expected = Sampling(mode="strided", frames=8, views=views, stride_seconds=0.25)
        assert (found.sampling, found.sparse_views, found.views) == (expected, 1, views)
        np.testing.assert_array_equal(
            clip_plan(found.sampling, sparse_views=1, name="a")(timeline(3000)),
            plan(expected, timeline(3000)),
        )


def test_views_that_there_are_not_are_refused() -> None:
    """In a line that names them."""
    own = way(mode="keyframes", frames=8)
    assert other_way(own, views=1) == own
    with pytest.raises(ModelError, match="--views 2: the model is shown keyframes pictures"):
        other_way(own, views=2)
    explicit = way(mode="explicit", frames=1, times_seconds=(0.5,))
    with pytest.raises(ModelError, match=r"--views 4: .* explicit"):
        other_way(explicit, views=4)
    for views in (0, 65):
        with pytest.raises(ModelError, match=f"--views {views}: not within 1 and 64"):
            other_way(way(frames=8), views=views)
