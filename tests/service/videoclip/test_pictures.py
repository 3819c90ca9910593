"""Upright pictures."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from service.videoclip.pictures import Orientation, orientation_of, turn, upright_rgb
from tests.service.videoclip.films import (
    DISPLAY_MATRICES,
    picture,
    set_display_matrix,
    turn_film,
    write_film,
)


def film(folder: Path) -> Path:
    """Three pictures of 128 x 96."""
    return write_film(folder / "film.mp4", pts=[0, 40, 80], width=128, height=96)


def first_frame(path: Path) -> av.VideoFrame:
    """The first frame as stored."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("degrees", DISPLAY_MATRICES)
def test_a_turned_film_is_shown_as_a_player_shows_it(tmp_path: Path, degrees: int) -> None:
    """The stored picture is turned clockwise by the angle of the track header."""
    path = film(tmp_path)
    stored = first_frame(path).to_ndarray(format="rgb24")
    frame = first_frame(turn_film(path, degrees=degrees))
    assert orientation_of(frame).rotation_degrees == degrees
    expected = np.rot90(stored, -degrees // 90)
    np.testing.assert_array_equal(upright_rgb(frame), expected)


@pytest.mark.parametrize("matrix", list(itertools.product((-1, 1), repeat=2)))
@pytest.mark.parametrize("transpose", [False, True])
def test_every_matrix_is_obeyed_point_by_point(
    tmp_path: Path, matrix: tuple[int, int], transpose: bool
) -> None:
    """All eight ways to lie, mirrored ones included, against the definition of the matrix."""
    first, second = matrix
    a, b, c, d = (0, first, second, 0) if transpose else (first, 0, 0, second)
    path = film(tmp_path)
    stored = first_frame(path).to_ndarray(format="rgb24")
    shown = upright_rgb(first_frame(set_display_matrix(path, (a, b, c, d))))
    height, width, _ = stored.shape
    for p, q in ((0, 0), (width - 1, 0), (10, 70), (100, 33)):
        x, y = a * p + c * q, b * p + d * q
        x += (width - 1) * (a < 0) + (height - 1) * (c < 0)
        y += (width - 1) * (b < 0) + (height - 1) * (d < 0)
        np.testing.assert_array_equal(shown[y, x], stored[q, p])


def test_a_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    """A broken header does not make the picture vanish."""
    frame = first_frame(set_display_matrix(film(tmp_path), (0, 0, 0, 0)))
    assert orientation_of(frame) == Orientation()


def test_a_picture_without_a_matrix_is_upright() -> None:
    """Most files have none."""
    frame = av.VideoFrame.from_ndarray(picture(3, width=64, height=48))
    assert orientation_of(frame) == Orientation()
    np.testing.assert_array_equal(upright_rgb(frame), picture(3, width=64, height=48))


def test_turning_copies_nothing() -> None:
    """The result is a view of the picture, so that 4K costs no second copy."""
    rgb = picture(0, width=64, height=48)
    for transpose, x, y in itertools.product((False, True), repeat=3):
        turned = turn(rgb, Orientation(transpose=transpose, mirror_x=x, mirror_y=y))
        assert np.shares_memory(turned, rgb)
        assert turned.shape == ((64, 48, 3) if transpose else (48, 64, 3))


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p10le", "yuv444p", "gray", "rgba", "pal8", "gbrp12le", "yuvj422p", "nv12"]
)
def test_pictures_of_many_pixel_formats_become_rgb(pix_fmt: str) -> None:
    """10 bits, 4:4:4, grey, alpha, palette, planar RGB."""
    rgb = picture(0, width=64, height=48)
    if pix_fmt == "pal8":
        frame = av.VideoFrame(64, 48, "pal8")
    else:
        frame = av.VideoFrame.from_ndarray(rgb).reformat(format=pix_fmt)
    shown = upright_rgb(frame)
    assert shown.shape == (48, 64, 3)
    assert shown.dtype == np.uint8
