"""Opening a video with distrust. The files that must not open are in tests/hostile/."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from service.videoclip.source import CODECS, FORMATS, SOUND_FORMATS, Limits, open_video
from tests.service.videoclip.films import write_film

STAMPS = [40 * number for number in range(25)]


def test_every_codec_of_the_list_exists_in_this_build() -> None:
    """A name that libavcodec does not know would be a typing mistake. One AV1 decoder is enough."""
    unknown = [name for name in CODECS if name not in av.codecs_available]
    assert set(unknown) <= {"av1", "libdav1d"}
    assert len(unknown) < 2


def test_no_format_of_the_list_opens_other_files() -> None:
    """Playlists, scripts, patterns and devices stay off the list."""
    dangerous = {"hls", "applehttp", "dash", "concat", "image2", "sdp", "rtsp", "tty", "lavfi"}
    assert not dangerous & {*FORMATS, *SOUND_FORMATS}


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.flv", "film.ts"])
def test_the_header_states_the_duration(tmp_path: Path, name: str) -> None:
    """1 s, also for a film whose time stamps begin at 5 s."""
    path = write_film(tmp_path / name, pts=[5000 + stamp for stamp in STAMPS])
    with open_video(path, limits=Limits()) as video:
        assert video.header_seconds == pytest.approx(1.0, abs=0.1)


def test_the_file_is_closed_again(tmp_path: Path) -> None:
    """After use, and after an error in between."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    def use_and_fail() -> None:
        with open_video(path, limits=Limits()):
            assert len(list(descriptors.iterdir())) > before
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            use_and_fail()
    assert len(list(descriptors.iterdir())) == before


def test_threads_are_as_asked(tmp_path: Path) -> None:
    """One by default: decode workers run beside each other."""
    path = write_film(tmp_path / "film.mp4", pts=STAMPS)
    with open_video(path, limits=Limits()) as video:
        assert video.decoder.thread_count == 1
    with open_video(path, limits=Limits(), threads=2) as video:
        assert video.decoder.thread_count == 2
