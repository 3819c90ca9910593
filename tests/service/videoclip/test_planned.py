"""Decoding to a plan: training sees the pictures that serving sees, shaped by itself."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Sampling
from service.videoclip.preprocessing import resize_crop
from service.videoclip.sampling import Timeline, Times, plan
from tests.service.videoclip.exactness import SMALL, clip_of
from tests.service.videoclip.films import read_number, write_film

COUNTS = list(range(60))
FILMS: dict[str, dict[str, object]] = {
    "h264.mp4": {},
    # Time stamps that cannot be trusted: everything is decoded in order, the plan is asked twice.
    "mpeg4-b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("mode", ["uniform", "segment_starts"])
def test_a_plan_of_what_is_served_gives_what_is_served(
    tmp_path: Path, name: str, mode: str
) -> None:
    """The same times and the same preparation give the same clip as `decode_clips`."""
    film = write_film(tmp_path / name, pts=COUNTS, time_base=Fraction(1, 25), **FILMS[name])  # type: ignore[arg-type]
    sampling = Sampling.model_validate({"mode": mode, "frames": 7})
    served = clip_of(film, sampling)
    planned = decode_planned(
        film,
        plan=partial(plan, sampling),
        shape=partial(resize_crop, p=SMALL),
        limits=Limits(),
    )
    np.testing.assert_array_equal(planned.pixels, served.pixels)
    np.testing.assert_array_equal(planned.times_seconds, served.times_seconds)
    assert planned.info == served.info
    assert planned.warnings == served.warnings


@pytest.mark.parametrize("name", FILMS)
def test_pictures_keep_the_shape_they_are_given(tmp_path: Path, name: str) -> None:
    """Pictures need be no squares; each is shaped once, also where it is shown twice."""
    film = write_film(tmp_path / name, pts=COUNTS, time_base=Fraction(1, 25), **FILMS[name])  # type: ignore[arg-type]
    shaped = []

    def times(timeline: Timeline) -> Times:
        return timeline.pts_seconds[[[5, 5, 40], [40, 41, 59]]]

    def half(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shaped.append(read_number(rgb))
        return rgb[:64]

    clip = decode_planned(film, plan=times, shape=half, limits=Limits())
    assert clip.pixels.shape == (2, 3, 64, 128, 3)
    numbers = [[read_number(np.repeat(p, 2, axis=0)) for p in view] for view in clip.pixels]
    assert numbers == [[5, 5, 40], [40, 41, 59]]
    assert sorted(shaped) == [5, 40, 41, 59]


def test_pictures_that_change_their_shape_are_refused(tmp_path: Path) -> None:
    """One array holds a video's pictures, so they must be of one shape."""
    film = write_film(tmp_path / "a.mp4", pts=COUNTS, time_base=Fraction(1, 25))
    heights: Iterator[int] = iter([10, 10, 11])

    def times(timeline: Timeline) -> Times:
        return timeline.pts_seconds[:3][None]

    with pytest.raises(VideoError, match="change their size") as caught:
        decode_planned(film, plan=times, shape=lambda rgb: rgb[: next(heights)], limits=Limits())
    assert caught.value.code == "picture_size_changes"
