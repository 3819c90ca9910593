"""Decoding: films of many kinds whose pictures can be told apart."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.videoclip import decoding
from service.videoclip.decoding import DecodedClip, Limits, probe
from service.videoclip.errors import TimeRange
from service.videoclip.manifest import Sampling
from tests.service.videoclip.exactness import WholeFile, assert_exact, clip_of
from tests.service.videoclip.films import read_number, write_film

MILLISECONDS = [40 * number for number in range(90)]
VARIABLE = np.cumsum(np.random.default_rng(0).integers(5, 200, 90)).tolist()
COUNTS = list(range(90))
OPEN_GOP = {"x264-params": "open-gop=1:bframes=8:b-adapt=0", "g": "20"}
FILMS: dict[str, dict[str, Any]] = {
    "constant.mp4": {"pts": MILLISECONDS},
    "variable.mp4": {"pts": VARIABLE},
    "variable.mkv": {"pts": VARIABLE},
    "late.mp4": {"pts": [stamp + 123_456 for stamp in MILLISECONDS]},
    "late.mkv": {"pts": [stamp + 123_456 for stamp in MILLISECONDS]},
    "late.ts": {"pts": [stamp + 123_456 for stamp in MILLISECONDS]},
    "only-keys.mp4": {"pts": MILLISECONDS, "gop": 1},
    "open-gop.mp4": {"pts": MILLISECONDS, "options": OPEN_GOP},
    "open-gop.ts": {"pts": MILLISECONDS, "options": OPEN_GOP},
    "intra-refresh.mp4": {
        "pts": MILLISECONDS,
        "options": {"x264-params": "intra-refresh=1:bframes=0", "g": "20"},
    },
    "fragmented.mp4": {
        "pts": [stamp + 80 for stamp in MILLISECONDS],
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264.flv": {"pts": MILLISECONDS},
    "h264.avi": {"pts": COUNTS, "time_base": Fraction(1, 25)},
    "mpeg4.avi": {"pts": COUNTS, "time_base": Fraction(1, 25), "codec": "mpeg4"},
    "mpeg4-b.avi": {
        "pts": COUNTS,
        "time_base": Fraction(1, 25),
        "codec": "mpeg4",
        "options": {"bf": "2"},
    },
    "mpeg2.mpg": {
        "pts": COUNTS,
        "time_base": Fraction(1, 25),
        "codec": "mpeg2video",
        "options": {"bf": "2"},
    },
    "mjpeg.mov": {"pts": MILLISECONDS, "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "wmv2.asf": {"pts": MILLISECONDS, "codec": "wmv2"},
    "vp8.webm": {"pts": MILLISECONDS, "codec": "libvpx"},
    # With pictures that are never shown.
    "vp9.webm": {
        "pts": MILLISECONDS,
        "codec": "libvpx-vp9",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
    },
    "layers.mp4": {
        "pts": MILLISECONDS,
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:bframes=4:temporal-layers=3"},
    },
}


@pytest.mark.parametrize("name", FILMS)
def test_films_of_every_kind_are_exact(tmp_path: Path, name: str) -> None:
    """Containers, codecs, variable rates, late starts, open groups, hidden pictures."""
    facts = FILMS[name]
    path = write_film(tmp_path / name, **facts)
    whole = WholeFile(path)
    assert len(whole.pictures) == 90
    generator = np.random.default_rng(len(name))
    for count in (1, 7, 40):
        assert_exact(path, whole, generator.uniform(0, whole.times[-1], count).tolist())

    time_base = float(facts.get("time_base", Fraction(1, 1000)))
    starts = (np.array(facts["pts"]) - facts["pts"][0]) * time_base
    clip = clip_of(path, Sampling(frames=6))
    for shown, time in zip(clip.pixels[0], clip.times_seconds[0], strict=True):
        assert abs(starts[read_number(shown)] - time) < 0.002
    assert clip.info.duration_seconds == pytest.approx(float(starts[-1]), abs=0.25)
    assert clip.info.frame_count == 90


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    """A decoder with several threads gives the same bits."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS)
    expected = clip_of(path, Sampling(frames=9)).pixels
    np.testing.assert_array_equal(
        clip_of(path, Sampling(frames=9), threads=threads).pixels, expected
    )


@pytest.mark.slow
def test_a_good_film_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way is for files that need it: here it must not be taken."""

    def refuse(*_: object, **__: object) -> DecodedClip:
        raise AssertionError("decoded in order")

    monkeypatch.setattr(decoding, "_decode_in_order", refuse)
    for name in ("variable.mp4", "late.mkv", "late.ts", "open-gop.mp4", "fragmented.mp4",
                 "h264.flv", "vp8.webm", "vp9.webm", "layers.mp4", "mpeg4.avi"):  # fmt: skip
        path = write_film(tmp_path / name, **FILMS[name])
        clip_of(path, Sampling(frames=8))


def test_spans_are_decoded_in_one_call(tmp_path: Path) -> None:
    """Each span is sampled for itself; spans may overlap, and the last may end after the video."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS)
    spans = [(0.0, 1.0), (0.5, 1.5), (3.0, 99.0)]
    clip = clip_of(path, Sampling(frames=5), spans=spans)
    assert clip.pixels.shape == (3, 5, 64, 64, 3)
    for (start, end), row, pixels in zip(spans, clip.times_seconds, clip.pixels, strict=True):
        stop = min(end, 3.6)
        middles = start + (np.arange(5) + 0.5) / 5 * (stop - start)
        expected = np.floor(middles / 0.04 + 1e-9).astype(int)
        np.testing.assert_allclose(row, expected * 0.04, atol=1e-9)
        assert [read_number(picture) for picture in pixels] == expected.tolist()


def test_views_and_spans_multiply(tmp_path: Path) -> None:
    """V is the number of spans times the sampling's views."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS)
    sampling = Sampling(mode="strided", frames=4, views=3, stride_seconds=0.1)
    clip = clip_of(path, sampling, spans=[(0.0, 1.8), (1.8, 3.6)])
    assert clip.pixels.shape == (6, 4, 64, 64, 3)
    assert np.all(clip.times_seconds[:3] < 1.8)
    assert np.all(clip.times_seconds[3:] >= 1.8 - 0.04)


def test_the_given_array_is_filled(tmp_path: Path) -> None:
    """`out` is returned as `pixels`, for shared memory; another shape, type or order is refused."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS)
    out = np.zeros((1, 4, 64, 64, 3), dtype=np.uint8)
    clip = clip_of(path, Sampling(frames=4), out=out)
    assert clip.pixels is out
    assert out.any(axis=(0, 2, 3, 4)).all()
    for wrong in (
        np.zeros((1, 5, 64, 64, 3), dtype=np.uint8),
        np.zeros((1, 4, 64, 64, 3), dtype=np.float32),
        np.zeros((1, 4, 64, 64, 6), dtype=np.uint8)[..., ::2],
    ):
        with pytest.raises(ValueError, match="out: expected contiguous uint8"):
            clip_of(path, Sampling(frames=4), out=wrong)  # type: ignore[arg-type, unused-ignore]


@pytest.mark.parametrize("spans", [[(4.0, 5.0)], [(0.0, 1.0), (1.0, 1.0)], [(-1.0, 1.0)]])
def test_a_span_outside_of_the_video_is_refused(
    tmp_path: Path, spans: list[tuple[float, float]]
) -> None:
    """The error says how long the video is."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS)
    with pytest.raises(TimeRange):
        clip_of(path, Sampling(frames=4), spans=spans)
    with pytest.raises(ValueError, match="spans: is empty"):
        clip_of(path, Sampling(frames=4), spans=[])


def test_fewer_pictures_than_asked_are_repeated_with_a_warning(tmp_path: Path) -> None:
    """Three pictures for eight places: all three are used, and the client is told."""
    path = write_film(tmp_path / "film.mp4", pts=[0, 40, 80])
    clip = clip_of(path, Sampling(frames=8))
    assert [read_number(picture) for picture in clip.pixels[0]] == [0, 0, 0, 1, 1, 2, 2, 2]
    (warning,) = clip.warnings
    assert warning.code == "frames_repeated"
    assert "8 pictures were asked for, 3 different ones" in warning.detail


def test_keyframes_are_key_pictures(tmp_path: Path) -> None:
    """Four of the eight key pictures 0, 12, 24, ..., spread evenly."""
    options = {"x264-params": "scenecut=0:keyint=12:min-keyint=12"}
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS, options=options)
    clip = clip_of(path, Sampling(mode="keyframes", frames=4))
    assert [read_number(picture) for picture in clip.pixels[0]] == [12, 36, 60, 84]


def test_probe_tells_what_a_file_holds(tmp_path: Path) -> None:
    """The same facts as decode_clips gives."""
    path = write_film(tmp_path / "film.mp4", pts=MILLISECONDS, width=96, height=160)
    info = probe(path, limits=Limits())
    assert (info.container, info.codec, info.width, info.height) == ("mov", "h264", 96, 160)
    assert info.rotation_degrees == 0
    assert info.fps == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(3.6)
    assert info.frame_count == 90
