"""Cuts between shots are found at their picture; motion, flashes and fades are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip.decoding import Limits
from service.videoclip.shots import find_cuts, thumb
from tests.service.videoclip.films import picture, write_film

FPS = 25
Picture = NDArray[np.uint8]


def scene(seed: int, number: int, *, speed: float = 1.0) -> Picture:
    """Picture `number` of a shot: blocks of this shot's colours that drift."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 256, 3)
    found = np.broadcast_to(ground, (96, 128, 3)).astype(np.uint8).copy()
    for _ in range(6):
        colour, (y, x) = draw.integers(0, 256, 3), draw.integers(0, 80, 2)
        left = int(x + speed * number) % 110
        found[y : y + 24, left : left + 24] = colour
    return found


def write(path: Path, pictures: Sequence[Picture]) -> Path:
    """Encode `pictures` at 25 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for each in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(each)))
        container.mux(stream.encode(None))
    return path


def shots(lengths: Sequence[int]) -> list[Picture]:
    """Pictures of shots of so many pictures each."""
    return [scene(seed, number) for seed, n in enumerate(lengths) for number in range(n)]


def test_cuts_are_found_at_their_picture(tmp_path: Path) -> None:
    """Shots from under a second to three: each begins at its first picture, exactly."""
    lengths = [30, 20, 75, 26, 50]
    path = write(tmp_path / "film.mp4", shots(lengths))
    found = find_cuts(path, start=0.0, end=99.0, limits=Limits())
    assert found == pytest.approx(np.cumsum(lengths)[:-1] / FPS)


@pytest.mark.parametrize("border", [1.0, 1.2, 1.6, 2.0, 3.3])
def test_parts_give_the_cuts_of_the_whole(tmp_path: Path, border: float) -> None:
    """Wherever a long video is divided, also at a cut itself: each cut is found in one part."""
    path = write(tmp_path / "film.mp4", shots([30, 20, 75, 26]))
    whole = find_cuts(path, start=0.0, end=99.0, limits=Limits())
    parts = [
        *find_cuts(path, start=0.0, end=border, limits=Limits()),
        *find_cuts(path, start=border, end=99.0, limits=Limits()),
    ]
    assert parts == whole
    assert len(whole) == 3


def _pan() -> list[Picture]:
    return [scene(1, number, speed=6.0) for number in range(75)]


def _flash() -> list[Picture]:
    pictures = [scene(2, number) for number in range(75)]
    pictures[40] = np.full_like(pictures[40], 255)
    return pictures


def _fade() -> list[Picture]:
    shares = np.clip((np.arange(100) - 25) / 50, 0, 1)
    return [
        ((1 - share) * scene(3, number) + share * scene(4, number)).astype(np.uint8)
        for number, share in enumerate(shares)
    ]


def _still() -> list[Picture]:
    return [scene(5, 0)] * 60


@pytest.mark.parametrize("make", [_pan, _flash, _fade, _still])
def test_what_is_no_cut_is_none(tmp_path: Path, make: Callable[[], list[Picture]]) -> None:
    """Fast motion, one white picture, a dissolve of two seconds, a still."""
    path = write(tmp_path / "film.mp4", make())
    assert find_cuts(path, start=0.0, end=99.0, limits=Limits()) == []


def test_a_single_picture_and_a_part_past_the_end(tmp_path: Path) -> None:
    """There is no cut, and no error."""
    path = write_film(tmp_path / "one.mp4", pts=[0])
    assert find_cuts(path, start=0.0, end=5.0, limits=Limits()) == []
    long = write_film(tmp_path / "film.mp4", pts=range(0, 2000, 40))
    assert find_cuts(long, start=50.0, end=60.0, limits=Limits()) == []


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("bikes.mp4", [1.2, 3.04, 5.48, 7.48, 9.68]),
        ("nasa_13013.mp4", [8.0]),
        ("chaplin.mp4", []),
        ("fire2.mp4", []),
    ],
)
def test_cuts_of_real_videos(
    shared_data: Callable[[str], Path], name: str, cuts: list[float]
) -> None:
    """As seen by eye; two of them are hand-held and shaky."""
    found = find_cuts(shared_data(f"videos/{name}"), start=0.0, end=99.0, limits=Limits())
    assert found == pytest.approx(cuts, abs=0.05)


def test_a_thumb_has_one_size() -> None:
    """Whatever the picture's, so that pictures of one stream can be compared."""
    assert thumb(picture(1, width=300, height=20)).shape == thumb(scene(1, 1)).shape
