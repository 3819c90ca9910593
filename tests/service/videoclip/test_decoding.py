"""Decoding: every real file of the shared data, and films whose pictures can be told apart."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip import decoding
from service.videoclip.decoding import DecodedClip, Limits, decode_clips, probe
from service.videoclip.errors import NoFrames, NotAVideo, TimeRange, UnsupportedContainer
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pictures import upright_rgb
from service.videoclip.preprocessing import resize_crop
from tests.service.videoclip.films import read_number, write_film

SharedData = Callable[[str], Path]

SMALL = Preprocessing(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
REFUSED = {
    "fixture-isomv2.mp4": UnsupportedContainer,
    "invalid-bitstream.webm": NoFrames,
    "jfk.flac": NotAVideo,
    "moviepy_result_empty.webm": UnsupportedContainer,
}
# Where the manifest's duration is not that of the best video stream, measured by decoding it all.
DURATIONS = {"exoplayer_sample.flv": 1.0, "no_duration.webm": 4.94}
FRAMES = {"nasa_13013.mp4": 390, "decord_corrupted.mp4": 50}
SIZES = {"nasa_13013.mp4": (480, 270)}
WARNINGS = {
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": {"timestamps_repaired"},
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": {"timestamps_repaired"},
    "mmaction2_test.avi": {"timestamps_repaired"},
    "S001C001P001R001A001_rgb.avi": {"timestamps_repaired"},
    "mmaction2_demo.mp4": {"non_square_pixels"},
    "decord_corrupted.mp4": {"damaged_stream"},
    "no_duration.webm": {"duration_unknown"},
    "decord_video_90.mov": {"frames_repeated"},
    "-video-with-dash-.mp4": {"frames_repeated"},
    "small_webm.webm": {"frames_repeated"},
}
# Files whose every chosen picture is compared with a decoding of the whole file. Left out: those
# refused, the damaged one (its own test), and the largest, for time.
EXACT = (
    "R6llTwEh07w.mp4",
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi",
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
    "v_SoccerJuggling_g23_c01.avi",
    "mmaction2_test.avi",
    "flipping_a_pancake.mkv",
    "v_GGSY1Qvo990.mp4",
    "asl_walk.mkv",
    "smthsmth_166766_vid.mp4",
    "videollava_demo_22_drums.mp4",
    "fire2.mp4",
    "bikes.mp4",
    "nasa_13013.mp4",
    "exoplayer_sample_av1.mp4",
    "exoplayer_sample.flv",
    "playable_but_bad_container.mkv",
    "no_duration.webm",
    "decord_video_90.mov",
)


def clip_of(path: Path, sampling: Sampling, **options: Any) -> DecodedClip:
    """`decode_clips` at 64 pixels with the default limits."""
    return decode_clips(path, sampling=sampling, preprocessing=SMALL, limits=Limits(), **options)


@cache
def rows_of(path: Path) -> dict[str, dict[str, str]]:
    """File name -> facts, from the shared MANIFEST.csv."""
    with path.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def names() -> list[str]:
    """The files that the tests expect in the shared data."""
    known = {*EXACT, *REFUSED, *WARNINGS, *SIZES}
    known |= {
        "mmaction2_demo.mp4",
        "test_video_structuralize.mp4",
        "paddlevideo_example.avi",
        "hitting_baseball.mp4",
        "yoga.mp4",
        "playing_guitar.mp4",
        "bottle-detection.mp4",
        "car-detection.mp4",
        "skateboarding_dog.mp4",
        "man-skiing.mp4",
        "cockatoo.mp4",
        "chaplin.mp4",
        "flower.mp4",
        "flower.webm",
        "portrait_4k60.mp4",
    }
    return sorted(known)


def test_no_shared_file_is_forgotten(shared_data: SharedData) -> None:
    """The list of names in this file is the list of the shared data."""
    assert sorted(rows_of(shared_data("videos/MANIFEST.csv"))) == names()


@pytest.mark.parametrize("name", [name for name in names() if name not in REFUSED])
def test_a_playable_file_agrees_with_its_manifest(shared_data: SharedData, name: str) -> None:
    """Duration, upright size, rotation, count; times ascend inside; expected warnings only."""
    row = rows_of(shared_data("videos/MANIFEST.csv"))[name]
    clip = clip_of(shared_data(f"videos/{name}"), Sampling(frames=8))
    info = clip.info

    assert clip.pixels.shape == (1, 8, 64, 64, 3)
    assert info.duration_seconds == pytest.approx(
        DURATIONS.get(name) or float(row["duration_s"]), abs=0.11
    )
    stored = SIZES.get(name) or (int(row["width"]), int(row["height"]))
    quarter_turn = abs(int(row["rotation"])) == 90
    assert (info.width, info.height) == (stored[::-1] if quarter_turn else stored)
    assert info.rotation_degrees == -int(row["rotation"]) % 360
    assert info.frame_count == FRAMES.get(name, int(row["decoded_frames"]))
    assert info.codec == row["codec"]
    assert row["container"].startswith(info.container)

    (times,) = clip.times_seconds
    step = info.duration_seconds / info.frame_count
    middles = (np.arange(8) + 0.5) / 8 * info.duration_seconds
    assert np.all(np.diff(times) >= 0)
    assert np.all(times <= middles + 1e-9)
    assert np.all(middles - times < max(5 * step, 0.2))
    assert {warning.code for warning in clip.warnings} == WARNINGS.get(name, set())
    if row["description"].startswith(("Nothing", "One", "Nearly")) is False:
        assert clip.pixels.std() > 10, "the picture is not empty"


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_with_its_reason(shared_data: SharedData, name: str) -> None:
    """A typed error, in words of ours: no path, no text of a library."""
    path = shared_data(f"videos/{name}")
    for use in (lambda: clip_of(path, Sampling(frames=8)), lambda: probe(path, limits=Limits())):
        with pytest.raises(REFUSED[name]) as caught:
            use()
        assert "Errno" not in caught.value.detail
        assert "/" not in caught.value.detail
        assert path.name not in caught.value.detail


class WholeFile:
    """Every picture of a file, decoded from first to last, upright and small."""

    def __init__(self, path: Path) -> None:
        stamps, self.pictures = [], []
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            assert stream is not None
            time_base = stream.time_base
            assert time_base is not None
            for frame in container.decode(stream):
                assert isinstance(frame, av.VideoFrame)
                assert frame.pts is not None
                stamps.append(frame.pts)
                self.pictures.append(resize_crop(upright_rgb(frame), SMALL))
        # A decoder puts pictures out as they are shown, even where stamps are out of order.
        ticks = np.sort(np.array(stamps))
        self.times = (ticks - ticks[0]) * time_base.numerator / time_base.denominator

    def picture_at(self, time: float) -> tuple[float, NDArray[np.uint8]]:
        """The last picture that is first shown at or before `time`."""
        number = max(0, int(np.searchsorted(self.times, time, side="right")) - 1)
        return float(self.times[number]), self.pictures[number]


def assert_exact(path: Path, whole: WholeFile, times: Sequence[float]) -> None:
    """The pictures for `times` are those of the whole file, to the last bit."""
    sampling = Sampling(mode="explicit", frames=len(times), times_seconds=tuple(times))
    clip = clip_of(path, sampling)
    for number, time in enumerate(times):
        shown_at, expected = whole.picture_at(time)
        assert clip.times_seconds[0, number] == pytest.approx(shown_at, abs=1e-9)
        np.testing.assert_array_equal(clip.pixels[0, number], expected)


@pytest.mark.parametrize("name", EXACT)
def test_chosen_pictures_are_those_of_a_full_decode(shared_data: SharedData, name: str) -> None:
    """At random times, in random order, in one call or a few: the same bits."""
    path = shared_data(f"videos/{name}")
    whole = WholeFile(path)
    generator = np.random.default_rng(len(name))
    last = float(whole.times[-1])
    for count in (1, 5, 20):
        assert_exact(path, whole, generator.uniform(0, last, count).tolist())
    assert_exact(path, whole, [0.0, last])


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
    # Both have pictures that are never shown; VP8 keeps them in packets of their own.
    "hidden.webm": {
        "pts": MILLISECONDS,
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "4"},
    },
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


def test_a_good_film_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way is for files that need it: here it must not be taken."""

    def refuse(*_: object, **__: object) -> DecodedClip:
        raise AssertionError("decoded in order")

    monkeypatch.setattr(decoding, "_decode_in_order", refuse)
    for name in ("variable.mp4", "late.mkv", "late.ts", "open-gop.mp4", "fragmented.mp4",
                 "h264.flv", "hidden.webm", "vp9.webm", "layers.mp4", "mpeg4.avi"):  # fmt: skip
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


def test_the_two_encodings_of_one_film_give_the_same_pictures(shared_data: SharedData) -> None:
    """flower.mp4 and flower.webm: the same times, and pictures that differ by compression only."""
    clips = [
        clip_of(shared_data(f"videos/flower.{kind}"), Sampling(frames=8))
        for kind in ("mp4", "webm")
    ]
    np.testing.assert_allclose(clips[0].times_seconds, clips[1].times_seconds, atol=0.002)
    difference = np.abs(clips[0].pixels.astype(int) - clips[1].pixels.astype(int))
    assert difference.mean() < 6


def test_sample_aspect_ratio_is_reported_and_not_applied(shared_data: SharedData) -> None:
    """The pictures are those of the file as stored: 340 x 256, as the network was trained."""
    clip = clip_of(shared_data("videos/mmaction2_demo.mp4"), Sampling(frames=1))
    assert (clip.info.width, clip.info.height) == (340, 256)
    (warning,) = clip.warnings
    assert warning.code == "non_square_pixels"
    assert "1.255" in warning.detail
