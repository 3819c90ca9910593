"""Videos that are damaged, that lie or that explode: a typed error or an honest answer."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from service.videoclip.decoding import Limits, probe
from service.videoclip.errors import (
    NoFrames,
    PictureTooLarge,
    VideoError,
    VideoTooLong,
)
from tests.hostile.answers import STAMPS, codes, decode
from tests.service.videoclip.films import picture, read_number, write_film


def write_bomb(path: Path, *, side: int = 4096) -> Path:
    """Grey pictures that cost nothing to send and much to decode."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 128, np.uint8))
        for number in range(2):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    """4096 x 4096 pictures in a few kilobytes: named with limit and actual value."""
    path = write_bomb(tmp_path / "bomb.mp4")
    assert path.stat().st_size < 100_000
    with pytest.raises(PictureTooLarge) as caught:
        decode(path)
    assert caught.value.limit == Limits().max_pixels
    assert caught.value.actual == 4096 * 4096
    roomy = Limits(max_pixels=4096 * 4096)
    assert decode(path, frames=2, limits=roomy).info.width == 4096


def test_a_bomb_that_lies_about_its_size_is_not_decoded(tmp_path: Path) -> None:
    """The header says 64 x 64, the stream 4096 x 4096: refused, and no picture is allocated."""
    path = write_bomb(tmp_path / "bomb.mp4")
    data = bytearray(path.read_bytes())
    entry = data.index(b"avc1", data.index(b"stsd"))
    data[entry + 28 : entry + 32] = struct.pack(">HH", 64, 64)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((PictureTooLarge, NoFrames)):
        decode(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, "kilobytes"


def test_too_long_a_video_is_refused(film: Path) -> None:
    """By seconds and by pictures, measured and not as the header says."""
    with pytest.raises(VideoTooLong) as caught:
        decode(film, limits=Limits(max_duration_seconds=1.0))
    assert caught.value.limit == 1.0
    with pytest.raises(VideoTooLong, match="more than 20 pictures"):
        decode(film, limits=Limits(max_frames=20))
    assert (
        decode(film, limits=Limits(max_frames=60, max_duration_seconds=2.4)).info.frame_count == 60
    )


def test_a_gap_of_years_is_too_long(tmp_path: Path) -> None:
    """Time stamps that jump are a long video, not a loop without end."""
    path = write_film(tmp_path / "film.mkv", pts=[0, 40, 80, 10**11])
    with pytest.raises(VideoTooLong):
        decode(path)


@pytest.mark.parametrize(
    "name", ["film.mp4", "film.mkv", "film.ts", "film.avi", "film.flv", "film.webm"]
)
def test_a_file_cut_off_anywhere_is_an_answer_or_an_error(tmp_path: Path, name: str) -> None:
    """Thirty cuts through every container: pictures from before the cut, or a typed error."""
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    codec = "libvpx" if name.endswith("webm") else "libx264"
    whole = write_film(tmp_path / name, pts=STAMPS, codec=codec, container_options=options)
    data = whole.read_bytes()
    answers = warned = 0
    refusals = set()
    for part in np.linspace(0, len(data), 31).astype(int)[:-1]:
        path = tmp_path / f"cut-{name}"
        path.write_bytes(data[:part])
        try:
            clip = decode(path)
        except VideoError as error:
            refusals.add(error.code)
            continue
        answers += 1
        numbers = [read_number(shown) for shown in clip.pixels[0]]
        assert numbers == sorted(numbers)
        assert clip.info.duration_seconds <= 2.5
        warned += bool(codes(clip) & {"truncated_stream", "duration_unknown"})
        if clip.info.duration_seconds < 1.2 and name in ("film.mp4", "film.mkv", "film.webm"):
            (warning,) = [w for w in clip.warnings if w.code == "truncated_stream"]
            assert "of 2.4" in warning.detail
    # "unsupported_codec": cut within the box that names the codec.
    known = {"unsupported_container", "no_video_stream", "unsupported_codec", "no_frames"}
    assert refusals <= known
    assert answers >= 8
    if name not in ("film.ts", "film.avi", "film.flv"):  # these have no header to compare with
        assert warned >= 8


def test_a_truncated_film_is_sampled_as_far_as_it_goes(tmp_path: Path, film: Path) -> None:
    """Half of the file gives pictures spread over the half that is there."""
    data = film.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = decode(path, frames=4)
    assert "truncated_stream" in codes(clip)
    (warning,) = [w for w in clip.warnings if w.code == "truncated_stream"]
    assert warning.detail == f"{clip.info.duration_seconds:.3f} of 2.400 seconds could be decoded"
    assert len({read_number(shown) for shown in clip.pixels[0]}) == 4


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.avi"])
def test_flipped_bytes_are_an_answer_or_an_error(tmp_path: Path, name: str) -> None:
    """Twenty damaged copies: nothing but typed errors and answers of the right shape."""
    data = write_film(tmp_path / name, pts=STAMPS).read_bytes()
    generator = np.random.default_rng(7)
    for _ in range(20):
        damaged = bytearray(data)
        for at in generator.integers(0, len(data), int(generator.integers(1, 40))):
            damaged[at] = int(generator.integers(0, 256))
        path = tmp_path / f"damaged-{name}"
        path.write_bytes(damaged)
        try:
            clip = decode(path, limits=Limits(max_pixels=1_000_000, max_frames=1000))
        except VideoError:
            continue
        assert clip.pixels.shape == (1, 8, 64, 64, 3)
        assert np.all(np.diff(clip.times_seconds) >= 0)


def test_a_damaged_picture_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    """A picture that cannot be decoded leaves the last good one on screen, with a warning."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS, options={"x264-params": "bframes=0"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets[30:33]]
    data = bytearray(path.read_bytes())
    for position, size in places:
        assert position is not None
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    clip = decode(path, frames=60)
    assert "damaged_stream" in codes(clip)
    numbers = [read_number(shown) for shown in clip.pixels[0]]
    assert numbers == sorted(numbers)
    assert not {30, 31, 32} & set(numbers)
    assert numbers[:30] == list(range(30))


def test_a_header_that_lies_about_time_changes_nothing(film: Path) -> None:
    """Durations of 0 or of days in mvhd, tkhd and mdhd: the packets say what is true."""
    good = decode(film)
    data = film.read_bytes()
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        for value in (0, 1, 2**31 - 1):
            lie = bytearray(data)
            at = lie.index(box) + offset
            lie[at : at + 4] = struct.pack(">I", value)
            path = film.with_name("lie.mp4")
            path.write_bytes(lie)
            clip = decode(path)
            np.testing.assert_array_equal(clip.times_seconds, good.times_seconds)
            np.testing.assert_array_equal(clip.pixels, good.pixels)


def test_an_edit_list_hides_what_it_hides(tmp_path: Path) -> None:
    """A film cut by its edit list starts at the cut; hidden pictures are not counted."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS, options={"x264-params": "bframes=0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        ticks = container.streams.video[0].time_base
        assert ticks is not None
        second = round(1 / ticks)
    box = data.index(b"elst")
    entry = box + 4 + 4 + 4
    movie_duration, media_time, rate = struct.unpack(">IiI", data[entry : entry + 12])
    data[entry : entry + 12] = struct.pack(
        ">IiI", movie_duration // 2, media_time + second * 4 // 5, rate
    )
    path.write_bytes(data)
    clip = decode(path, frames=4)
    numbers = [read_number(shown) for shown in clip.pixels[0]]
    assert numbers[0] >= 20
    assert clip.info.frame_count < 60
    np.testing.assert_allclose(np.array(numbers) * 0.04 - 0.8, clip.times_seconds[0], atol=1e-6)


def test_a_still_of_ten_hours_and_a_blink(tmp_path: Path) -> None:
    """One picture, two pictures with hours between, and a clip shorter than its sampling."""
    one = decode(write_film(tmp_path / "one.mp4", pts=[0]))
    assert one.info.frame_count == 1
    assert one.info.fps is None
    assert codes(one) == {"frames_repeated"}
    long = write_film(tmp_path / "long.mkv", pts=[0, 7_000_000])
    clip = decode(long, frames=4)
    assert [read_number(shown) for shown in clip.pixels[0]] == [0, 0, 1, 1]
    with pytest.raises(VideoTooLong):
        decode(long, limits=Limits(max_duration_seconds=6000))


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 1024), (1024, 16), (34, 50)])
def test_strange_shapes_become_squares(tmp_path: Path, width: int, height: int) -> None:
    """Tiny, very wide, very high."""
    path = write_film(tmp_path / "film.mkv", pts=STAMPS[:5], width=width, height=height)
    clip = decode(path)
    assert clip.pixels.shape == (1, 8, 64, 64, 3)
    assert (clip.info.width, clip.info.height) == (width, height)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
        ("libx264", "gray"),
        ("mjpeg", "yuvj444p"),
    ],
)
def test_unusual_pixels_are_decoded(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    """4:4:4, ten bits, grey."""
    path = write_film(tmp_path / "film.mov", pts=STAMPS[:20], codec=codec, pix_fmt=pix_fmt)
    clip = decode(path, frames=4)
    assert [read_number(shown) for shown in clip.pixels[0]] == [2, 7, 12, 17]


def test_the_size_may_change_within_a_stream(tmp_path: Path) -> None:
    """Two MPEG transport streams, one after the other: every picture becomes a square."""
    first = write_film(tmp_path / "a.ts", pts=STAMPS, width=128, height=128)
    later = [stamp + 2400 for stamp in STAMPS]
    second = write_film(tmp_path / "b.ts", pts=later, width=256, height=256)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    clip = decode(path, frames=12)
    assert clip.info.frame_count > 100
    numbers = [read_number(shown) for shown in clip.pixels[0]]
    assert numbers[:5] == sorted(numbers[:5])
    assert numbers[-5:] == sorted(numbers[-5:])


def test_only_the_best_video_stream_counts(tmp_path: Path) -> None:
    """A thumbnail track before the film does not hide it."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for side in (32, 128):
            stream = container.add_stream("libx264", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            streams.append((stream, side))
        for number in range(20):
            for stream, side in streams:
                frame = av.VideoFrame.from_ndarray(picture(number, width=side, height=side))
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    assert probe(path, limits=Limits()).width == 128


def test_a_missing_file_is_our_mistake_and_no_video_error(tmp_path: Path) -> None:
    """The sender of a video is not told about files that vanish here."""
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "gone.mp4")
    with pytest.raises(IsADirectoryError):
        decode(tmp_path)
