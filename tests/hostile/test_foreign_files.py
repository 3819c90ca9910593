"""Files that are no video, or want other files to be opened: refused, each with its reason."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.videoclip.errors import (
    NoFrames,
    NotAVideo,
    UnsupportedCodec,
    UnsupportedContainer,
)
from tests.hostile.answers import STAMPS, decode
from tests.service.videoclip.films import write_film

NOT_VIDEOS = {
    "empty": b"",
    "one byte": b"\x00",
    "zeros": bytes(5000),
    "noise": np.random.default_rng(0).bytes(5000),
    "text": b"hello world\n" * 100,
    "html": b"<!doctype html><html><body>no video</body></html>",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "gif": b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00"
    b"\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "mp4 type only": b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00",
    "raw h264": b"\x00\x00\x00\x01\x67\x42\x00\x0a" + bytes(100),
}


@pytest.mark.parametrize("kind", NOT_VIDEOS)
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".bin"])
def test_what_is_no_video_is_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    """Whatever the name says; the words tell nothing about the machine or its libraries."""
    path = tmp_path / f"upload{suffix}"
    path.write_bytes(NOT_VIDEOS[kind])
    with pytest.raises((UnsupportedContainer, NotAVideo, NoFrames)) as caught:
        decode(path)
    for secret in (str(tmp_path), "upload", "Errno", "Invalid data", "avformat", "ffmpeg"):
        assert secret not in caught.value.detail


SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile film.mp4\n",
    "ffconcat absolute": "ffconcat version 1.0\nfile {folder}/film.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nfilm.mp4\n#EXT-X-ENDLIST\n",
    "hls absolute": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\n"
    "file://{folder}/film.mp4\n#EXT-X-ENDLIST\n",
    "hls http": "#EXTM3U\n#EXTINF:2.4,\nhttp://127.0.0.1:9/film.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>film.mp4</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("name", ["upload.mp4", "upload.m3u8", "upload.ffconcat", "upload.mpd"])
def test_a_playlist_opens_no_other_file(
    film: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A playlist beside a good film, run in its folder, does not reach it under any name."""
    monkeypatch.chdir(film.parent)
    path = film.parent / name
    path.write_text(SCRIPTS[kind].format(folder=film.parent))
    with pytest.raises(UnsupportedContainer):
        decode(path)


@pytest.mark.parametrize(
    "name", ["concat:film.mp4", "-i.mp4", "%d.mp4", "a:b?c=d#e.mp4", "film\n.mp4", "pipe:0", "ü 犬"]
)
def test_a_name_is_never_a_url_or_a_pattern(
    film: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film with a strange name is a film, also under a relative path."""
    monkeypatch.chdir(film.parent)
    film.rename(film.parent / name)
    assert decode(Path(name)).info.frame_count == 60


def test_sound_only_is_no_video(tmp_path: Path) -> None:
    """A WAV file is recognised, to be able to say what is missing in it."""
    path = tmp_path / "upload.mp4"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    with pytest.raises(NotAVideo, match=r"^the file has no video stream$"):
        decode(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    """MP3 with a picture in its ID3 tag: libavformat makes a video stream of it."""
    png = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(png, "png")
    body = b"\x00image/png\x00\x03\x00" + png.getvalue()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\x00\x00" + body
    sizes = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    silence = (b"\xff\xfb\x90\x00" + bytes(413)) * 40
    path = tmp_path / "upload.mp4"
    path.write_bytes(b"ID3\x03\x00\x00" + sizes + frame + silence)
    with pytest.raises(NotAVideo, match="no video stream but a cover picture"):
        decode(path)


def test_a_codec_off_the_list_is_refused_by_name(tmp_path: Path) -> None:
    """FFV1 in Matroska: a good file, a decoder we do not expose."""
    path = write_film(tmp_path / "film.mkv", pts=STAMPS[:5], codec="ffv1")
    with pytest.raises(UnsupportedCodec, match="ffv1") as caught:
        decode(path)
    assert caught.value.actual == "ffv1"
