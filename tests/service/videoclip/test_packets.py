"""The packet index and the timeline made from it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.packets import PacketIndex, make_timeline, read_index
from service.videoclip.source import Limits, open_video
from tests.service.videoclip.exactness import WholeFile, assert_exact
from tests.service.videoclip.films import write_film


def index_of(path: Path) -> PacketIndex:
    """The index under the default limits."""
    with open_video(path, limits=Limits()) as video:
        return read_index(video, limits=Limits())


@given(
    steps=st.lists(st.integers(0, 10**6), max_size=30),
    first=st.integers(-(10**9), 10**12),
    last=st.integers(0, 10**6),
    time_base=st.sampled_from([Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 1000)]),
    header=st.none() | st.floats(0.001, 1e5),
)
def test_any_stamps_make_a_timeline(
    steps: list[int], first: int, last: int, time_base: Fraction, header: float | None
) -> None:
    """It starts at 0, has a time for each stamp, and ends after the last."""
    pts = first + np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
    timeline = make_timeline(
        pts,
        time_base=time_base,
        keyframe=np.ones(len(pts), dtype=bool),
        last_duration=last,
        header_seconds=header,
    )
    np.testing.assert_allclose(timeline.pts_seconds, (pts - pts[0]) * float(time_base), rtol=1e-12)
    assert timeline.end_seconds > timeline.pts_seconds[-1]


@pytest.mark.parametrize(
    ("pts", "last", "header", "end"),
    [
        ([0, 10, 20], 10, None, 30.0),
        ([0, 10, 20], 0, None, 30.0),  # no duration: the usual step
        ([0, 10, 20], 1, None, 30.0),  # FLV states one tick: not believed
        ([0, 10, 20], 500, None, 520.0),  # a last picture that stays on screen
        ([0], 0, 7.0, 7.0),  # a single picture: the header
        ([0], 0, None, 1.0),  # nothing known: a second
        ([0], 40, 7.0, 40.0),
        ([5, 5, 5], 0, 7.0, 7.0),
    ],
)
def test_how_long_the_last_picture_is_shown(
    pts: list[int], last: int, header: float | None, end: float
) -> None:
    """Its own duration if that is plausible, else the usual step, else the header."""
    timeline = make_timeline(
        np.array(pts),
        time_base=Fraction(1),
        keyframe=np.ones(len(pts), dtype=bool),
        last_duration=last,
        header_seconds=header,
    )
    assert timeline.end_seconds == end


def test_the_index_is_in_the_order_of_decoding(tmp_path: Path) -> None:
    """With B-frames the packets are not in order of presentation; `shown_packets` puts them so."""
    pts = [40 * number for number in range(30)]
    path = write_film(tmp_path / "film.mp4", pts=pts, options={"x264-params": "bframes=3"})
    index = index_of(path)
    assert index.trusted
    assert np.any(np.diff(index.pts) < 0)
    ordered = index.pts[index.shown_packets()]
    assert np.all(np.diff(ordered) > 0)
    assert len(ordered) == 30
    assert index.keyframe[0]


def test_avi_with_b_frames_is_not_trusted(tmp_path: Path) -> None:
    """Its stamps count packets; without B-frames they are right."""
    plain = write_film(
        tmp_path / "plain.avi", pts=list(range(30)), time_base=Fraction(1, 25), codec="mpeg4"
    )
    assert index_of(plain).trusted
    reordered = write_film(
        tmp_path / "reordered.avi", pts=list(range(30)), time_base=Fraction(1, 25)
    )
    assert not index_of(reordered).trusted


def test_hidden_pictures_are_not_shown(tmp_path: Path) -> None:
    """VP8 keeps pictures that are only referred to in packets of their own (RFC 6386, 9.1)."""
    pts = [40 * number for number in range(30)]
    plain = write_film(tmp_path / "plain.webm", pts=pts, codec="libvpx", gop=10)
    path = tmp_path / "hidden.webm"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size == 0:
                continue
            packet.stream = stream
            target.mux(packet)
            if packet.is_keyframe:
                # The key picture once more, not to be shown: decoding it again changes nothing.
                data = bytearray(bytes(packet))
                data[0] &= ~0x10
                hidden = av.Packet(bytes(data))
                assert packet.pts is not None
                hidden.pts = hidden.dts = packet.pts + 20
                hidden.time_base = packet.time_base
                hidden.stream = stream
                target.mux(hidden)
    index = index_of(path)
    assert len(index.pts) == 33
    assert index.pts[index.shown_packets()].tolist() == pts
    whole = WholeFile(path)
    assert len(whole.pictures) == 30
    assert_exact(path, whole, [0.0, 0.03, 0.39, 0.41, 1.1])
