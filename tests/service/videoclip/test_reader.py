"""Going to a packet and decoding from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.videoclip.packets import PacketIndex, read_index
from service.videoclip.reader import LostPlaceError, PacketReader
from service.videoclip.source import Limits, OpenVideo, open_video
from tests.service.videoclip.films import read_number, write_film

OPTIONS = {"x264-params": "scenecut=0:keyint=30:min-keyint=30:bframes=2"}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """300 pictures, a key picture at every thirtieth."""
    return write_film(
        tmp_path / "film.mp4", pts=[40 * number for number in range(300)], options=OPTIONS
    )


def shown_numbers(reader: PacketReader, first: int, last: int, wanted: set[int]) -> list[int]:
    """The numbers on the pictures that come out."""
    return [
        read_number(frame.to_ndarray(format="rgb24"))  # type: ignore[arg-type]
        for frame in reader.decode(first, last, wanted=wanted)
    ]


def opened(video: OpenVideo) -> tuple[PacketIndex, PacketReader]:
    """Index and reader."""
    index = read_index(video, limits=Limits())
    return index, PacketReader(video, index)


def test_groups_are_reached_by_seeking_and_by_reading_on(film: Path) -> None:
    """Far ahead, just ahead, and from a fresh start."""
    with open_video(film, limits=Limits()) as video:
        index, reader = opened(video)
        keys = np.flatnonzero(index.keyframe).tolist()
        assert keys == list(range(0, 300, 30))
        for first in (60, 90, 240, 270):
            assert shown_numbers(reader, first, first, {first}) == [first % 256]
        assert reader.errors == 0


def test_pictures_that_nothing_needs_are_left_out(film: Path) -> None:
    """Only the wanted B-frame of a group is decoded; reference pictures always are."""
    with open_video(film, limits=Limits()) as video:
        index, reader = opened(video)
        order = np.argsort(index.pts)
        b_frames = [number for number in range(31, 59) if index.pts[number] < index.pts[number - 1]]
        wanted = b_frames[-1]
        numbers = shown_numbers(reader, 30, 59, {wanted})
        assert int(np.flatnonzero(order == wanted)[0]) % 256 in numbers
        assert len(numbers) < 30
        everything = shown_numbers(reader, 60, 89, set(range(60, 90)))
        assert everything == list(range(60, 90))


def test_an_index_of_another_file_is_noticed(film: Path, tmp_path: Path) -> None:
    """Packets that are not in the index, or not at their place, are not taken for others."""
    other = write_film(
        tmp_path / "other.mp4", pts=[50 * number for number in range(300)], options=OPTIONS
    )
    with open_video(other, limits=Limits()) as video:
        foreign = read_index(video, limits=Limits())
    with open_video(film, limits=Limits()) as video:
        reader = PacketReader(video, foreign)
        with pytest.raises(LostPlaceError):
            shown_numbers(reader, 30, 35, {30})
