"""A timeline first, pictures at times planned from it later."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.moments import decode_at, read_timeline
from tests.service.videoclip.films import read_number, write_film

SMALL = Preprocessing(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
STAMPS = [40 * number for number in range(60)]


def test_a_timeline_tells_every_picture(tmp_path: Path) -> None:
    """Times from 0 although the film starts later, key pictures, end, facts."""
    late = [stamp + 7000 for stamp in STAMPS]
    path = write_film(tmp_path / "film.mkv", pts=late, options={"x264-params": "bframes=0"})
    info, timeline = read_timeline(path, limits=Limits())
    assert timeline.pts_seconds == pytest.approx(np.arange(60) * 0.04)
    assert timeline.end_seconds == pytest.approx(2.4, abs=0.002)
    assert np.flatnonzero(timeline.keyframe).tolist() == [0, 12, 24, 36, 48]
    assert (info.codec, info.width, info.frame_count) == ("h264", 128, 60)


@pytest.mark.parametrize("name", ["film.mp4", "film.ts", "film.avi"])
def test_pictures_are_those_at_the_times(tmp_path: Path, name: str) -> None:
    """Any order, repeated ones too, in any container: the picture that is on screen."""
    path = write_film(tmp_path / name, pts=STAMPS)
    _, timeline = read_timeline(path, limits=Limits())
    chosen = np.array([[3, 50, 3, 0], [59, 12, 13, 50]])
    times = timeline.pts_seconds[chosen]
    out = np.zeros((2, 4, 64, 64, 3), np.uint8)
    clip = decode_at(path, times, preprocessing=SMALL, limits=Limits(), out=out)
    assert [[read_number(picture) for picture in row] for row in out] == chosen.tolist()
    assert clip.times_seconds == pytest.approx(times)


def test_they_are_what_whole_clips_are(tmp_path: Path) -> None:
    """The same pixels as when planning and decoding are one call."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS)
    whole = decode_clips(path, sampling=Sampling(frames=8), preprocessing=SMALL, limits=Limits())
    out = np.zeros((1, 8, 64, 64, 3), np.uint8)
    decode_at(path, whole.times_seconds, preprocessing=SMALL, limits=Limits(), out=out)
    assert np.array_equal(out, whole.pixels)


def test_times_past_the_end_get_the_last_picture(tmp_path: Path) -> None:
    """Where damage made the film shorter than planned: an answer that tells its times."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS, options={"x264-params": "bframes=0"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets[40:]]
    data = bytearray(path.read_bytes())
    for position, size in places:
        assert position is not None
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    out = np.zeros((1, 3, 64, 64, 3), np.uint8)
    times = np.array([[0.4, 1.2, 2.2]])
    clip = decode_at(path, times, preprocessing=SMALL, limits=Limits(), out=out)
    assert [read_number(picture) for picture in out[0]] == [10, 30, 39]
    assert clip.times_seconds[0] == pytest.approx([0.4, 1.2, 1.56])
    assert "damaged_stream" in {warning.code for warning in clip.warnings}


def test_shapes_that_do_not_fit_are_a_mistake(tmp_path: Path) -> None:
    """Of ours, before a file is opened."""
    out = np.zeros((1, 2, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        decode_at(tmp_path, np.zeros((1, 3)), preprocessing=SMALL, limits=Limits(), out=out)
