"""Decoding: every real file of the shared data."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from service.videoclip.decoding import Limits, probe
from service.videoclip.errors import NoFrames, NotAVideo, UnsupportedContainer
from service.videoclip.manifest import Sampling
from tests.service.videoclip.exactness import WholeFile, assert_exact, clip_of

SharedData = Callable[[str], Path]

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
