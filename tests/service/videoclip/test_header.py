"""Headers: what they claim, read without any packet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from service.videoclip.errors import PictureTooLarge
from service.videoclip.header import mean_group_seconds, read_header
from service.videoclip.source import Limits
from tests.service.videoclip.films import write_film

STAMPS = [40 * number for number in range(100)]
KEYS = {"x264-params": "scenecut=0:keyint=25:min-keyint=25"}


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_header_tells_what_decoding_costs(tmp_path: Path, name: str) -> None:
    """Codec, size, time, rate, and how far apart key pictures are, from an index of either kind."""
    path = write_film(tmp_path / name, pts=STAMPS, width=160, height=90, options=KEYS)
    header = read_header(path, limits=Limits())
    assert (header.codec, header.width, header.height) == ("h264", 160, 90)
    assert header.duration_seconds == pytest.approx(4.0, abs=0.1)
    assert header.fps == pytest.approx(25.0, abs=0.5)
    assert header.key_seconds == pytest.approx(1.0, abs=0.05)
    assert header.size_bytes == path.stat().st_size


def test_long_groups_count_more_than_short_ones() -> None:
    """Most moments of a film whose second half has no key picture lie in that half."""
    assert mean_group_seconds(np.array([0.0, 1.0, 2.0, 3.0])) == 1.0
    assert mean_group_seconds(np.array([0.0, 1.0, 10.0])) == pytest.approx((1 + 81) / 10)
    assert mean_group_seconds(np.array([5.0])) is None
    assert mean_group_seconds(np.array([])) is None


def test_a_single_group_is_as_long_as_the_film(tmp_path: Path) -> None:
    """One key picture at the start: no distance can be measured, all of it is one group."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS, gop=250)
    header = read_header(path, limits=Limits())
    assert header.key_seconds == pytest.approx(4.0, abs=0.1)


def test_without_an_index_the_distance_is_unknown(tmp_path: Path) -> None:
    """MPEG transport streams have none."""
    path = write_film(tmp_path / "film.ts", pts=STAMPS, options=KEYS)
    assert read_header(path, limits=Limits()).key_seconds is None


def test_a_descriptor_is_as_good_as_a_path(tmp_path: Path) -> None:
    """Wherever it was read to before; it stays open."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS)
    expected = read_header(path, limits=Limits())
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 1000, os.SEEK_SET)
        assert read_header(descriptor, limits=Limits()) == expected
        assert read_header(descriptor, limits=Limits()) == expected
    finally:
        os.close(descriptor)


def test_limits_hold_for_headers_too(tmp_path: Path) -> None:
    """What can never be accepted is refused before it waits for its turn."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS[:3])
    with pytest.raises(PictureTooLarge):
        read_header(path, limits=Limits(max_pixels=1000))
