"""What hostile clients send: each input with the answers that it may get.

Numbers in names are those of the list of bad inputs that the tests follow; here are 11-23,
containers and codecs, and `tests.hostile.requests` has the options around good files. An input
whose allowed answers hold `OK` is a video that is odd but good, or damaged but still watchable.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import wave
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.hostile import mutations
from tests.hostile.mutations import Spoiled
from tests.hostile.test_broken_videos import write_bomb
from tests.hostile.test_foreign_files import NOT_VIDEOS, SCRIPTS
from tests.service.videoclip.films import set_display_matrix, turn_film, write_film

OK = "ok"
LABELS: list[str] = ["a red square", "a green circle", "rain"]

_NO_FILE = frozenset({"unsupported_container"})
_NO_VIDEO = frozenset({"no_video_stream"})
_LONG = frozenset({"video_too_long"})
GOOD = frozenset({OK})
#: What a spoiled video may be: watchable, of no known kind, without pictures, without a decoder,
#: of another size or length than is allowed. Never a failure of the service.
SPOILED = frozenset(
    {OK, "unsupported_container", "unsupported_codec", "no_video_stream", "no_frames",
     "picture_too_large", "video_too_long", "time_range", "decode_failed"}
)  # fmt: skip

Fields = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Bad:
    """One input: bytes of the file, its name, fields of the form, codes of allowed answers."""

    name: str
    data: bytes
    allowed: frozenset[str]
    file_name: str = "upload.mp4"
    content_type: str = "video/mp4"
    fields: Fields = field(default_factory=dict)

    @property
    def form(self) -> dict[str, str | list[str]]:
        """The fields of the form, labels included."""
        return {"labels": LABELS, **self.fields}


def files(folder: Path) -> list[Bad]:
    """All files of the corpus; they are written below `folder`."""
    film = good_film(folder)
    return [
        *foreign_files(folder, film),
        *scripts(folder),
        *strange_videos(folder),
        *bombs(folder, film),
        *polyglots(film),
        *spoiled(folder, film),
    ]


def good_film(folder: Path) -> bytes:
    """A small film of 2.4 s, its index at the front."""
    options = {"movflags": "faststart"}
    pts = range(0, 2400, 40)
    path = folder / "good.mp4"
    return write_film(path, pts=pts, width=64, height=64, container_options=options).read_bytes()


def foreign_files(folder: Path, film: bytes) -> Iterator[Bad]:
    """11, 12, 15: no video, whatever it is called."""
    for kind, data in NOT_VIDEOS.items():
        allowed = _NO_FILE | (_NO_VIDEO | {"no_frames"})
        yield Bad(f"11 {kind}", data, allowed if data else _NO_FILE)
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "jpeg")
    yield Bad("11 jpeg", picture.getvalue(), _NO_FILE, "film.jpg", "image/jpeg")
    yield Bad("11 gzip of a film", gzip.compress(film), _NO_FILE, "film.mp4.gz")
    yield Bad("11 ansi art", b"\x1b[2J\x1b[31mhello\x1b[0m\n" * 200, _NO_FILE, "film.ans")
    yield Bad("11 elf", b"\x7fELF\x02\x01\x01" + bytes(200), _NO_FILE, "film.mp4")
    yield Bad("11 json", json.dumps({"video": [1] * 300}).encode(), _NO_FILE, "a.json")
    yield Bad("12 film called text", film, GOOD, "readme.txt", "text/plain")
    yield Bad("12 film of no type", film, GOOD, "film", "application/x-msdownload")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    yield Bad("15 wav", sound.getvalue(), _NO_VIDEO)
    for name, codec in (("sound.mp4", "aac"), ("sound.mkv", "aac"), ("sound.flac", "flac")):
        yield Bad(f"15 sound only, {name}", _sound(folder / name, codec), _NO_VIDEO)
    yield Bad("21 ffv1", _film(folder / "ffv1.mkv", codec="ffv1"), frozenset({"unsupported_codec"}))
    raw = _film(folder / "raw.avi", codec="rawvideo")
    yield Bad("21 raw pictures in avi", raw, frozenset({"unsupported_codec"}))
    unknown = film.replace(b"avc1", b"xyzw")
    yield Bad("21 unknown fourcc", unknown, frozenset({"unsupported_codec"}))
    locked = film.replace(b"avc1", b"encv")
    yield Bad("22 encrypted", locked, frozenset({"unsupported_codec", "no_frames", OK}))


def scripts(folder: Path) -> Iterator[Bad]:
    """14: texts that make libavformat open something else."""
    for kind, text in SCRIPTS.items():
        data = text.format(folder=folder).encode()
        for name in ("upload.mp4", "upload.m3u8"):
            yield Bad(f"14 {kind} as {name}", data, _NO_FILE, name, "application/x-mpegurl")
    others = {
        "concat protocol": "concat:good.mp4|good.mp4",
        "subfile": "subfile,,start,0,end,9,,:good.mp4",
        "pictures by number": "%03d.png",
        "smil": "<smil><body><video src='file:///etc/passwd'/></body></smil>",
        "webvtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
        "lavfi": "testsrc=duration=10:size=320x240",
        "rtsp": "v=0\r\ns=x\r\na=control:rtsp://127.0.0.1:9/\r\nm=video 0 RTP/AVP 96\r\n",
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "hls of a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/passwd"\n'
        "#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    }
    for kind, text in others.items():
        yield Bad(f"14 {kind}", text.encode(), _NO_FILE, "upload.txt", "text/plain")


def strange_videos(folder: Path) -> Iterator[Bad]:
    """15-19, 21: odd, and good."""
    made: list[tuple[str, Callable[[Path], Path]]] = [
        ("16 one pixel.mkv", lambda p: _plain(p, width=1, height=1, pix_fmt="yuv444p")),
        ("16 three by five.mkv", lambda p: _plain(p, width=3, height=5, pix_fmt="yuv444p")),
        ("16 wide.mp4", lambda p: _plain(p, width=1024, height=2)),
        ("16 high.mp4", lambda p: _plain(p, width=2, height=1024)),
        ("16 ten bits.mp4", lambda p: _plain(p, pix_fmt="yuv420p10le")),
        ("16 four four four.mp4", lambda p: _plain(p, pix_fmt="yuv444p")),
        ("16 grey.mp4", lambda p: _plain(p, pix_fmt="gray")),
        ("16 turned.mp4", lambda p: turn_film(_plain(p), degrees=90)),
        ("16 no matrix.mp4", lambda p: set_display_matrix(_plain(p), (0, 0, 0, 0))),
        ("18 equal stamps.mkv", lambda p: _plain(p, pts=[0, 40, 40, 40, 80])),
        ("18 uneven.mp4", lambda p: _plain(p, pts=[0, 1, 2, 500, 501, 3000])),
        ("18 a thousand a second.mp4", lambda p: _plain(p, pts=range(100))),
        ("18 late start.mkv", lambda p: _plain(p, pts=[10**9 + 40 * n for n in range(20)])),
        ("19 one picture.mp4", lambda p: _plain(p, pts=[0])),
        ("19 two pictures.mp4", lambda p: _plain(p, pts=[0, 40])),
        ("19 a blink.ts", lambda p: _plain(p, pts=[0, 40, 80])),
        ("21 mpeg-2.ts", lambda p: _plain(p, codec="mpeg2video")),
        ("21 mpeg-4.avi", lambda p: _plain(p, codec="mpeg4")),
        ("21 mjpeg.avi", lambda p: _plain(p, codec="mjpeg", pix_fmt="yuvj420p")),
        ("21 vp9.webm", lambda p: _plain(p, codec="libvpx-vp9")),
        ("21 h264.flv", _plain),
    ]
    for name, make in made:
        path = folder / name
        yield Bad(name, make(path).read_bytes(), GOOD, path.name)
    small = _film(folder / "small.ts", width=64, height=64)
    large = write_film(
        folder / "large.ts", pts=[2400 + 40 * n for n in range(20)], width=128, height=96
    )
    yield Bad("16 size changes.ts", small + large.read_bytes(), GOOD)
    yield Bad("15 two streams", _two_streams(folder / "two.mkv"), GOOD)


def bombs(folder: Path, film: bytes) -> Iterator[Bad]:
    """16-19, 23: small to send, or large to open."""
    too_large = frozenset({"picture_too_large"})
    bomb = write_bomb(folder / "bomb.mp4").read_bytes()
    yield Bad("17 a bomb of pixels", bomb, too_large)
    liar = bytearray(bomb)
    entry = liar.index(b"avc1", liar.index(b"stsd"))
    liar[entry + 28 : entry + 32] = struct.pack(">HH", 64, 64)
    yield Bad("17 a bomb that lies", bytes(liar), too_large | {"no_frames"})
    hours = _plain(folder / "hours.mkv", pts=[0, 36_000_000])
    yield Bad("19 ten hours of a still", hours.read_bytes(), _LONG)
    years = _plain(folder / "years.mkv", pts=[0, 40, 80, 10**11])
    yield Bad("18 a gap of years", years.read_bytes(), _LONG)
    minutes = _plain(folder / "minutes.mp4", pts=range(0, 120_000, 1000))
    yield Bad("19 two minutes where one is allowed", minutes.read_bytes(), _LONG)
    nested = b""
    for _ in range(2000):
        nested = struct.pack(">I4s", len(nested) + 8, b"moov") + nested
    yield Bad("23 boxes in boxes", film[:32] + nested + film[32:], SPOILED)
    free = struct.pack(">I4s", 8, b"free") * 100_000
    yield Bad("23 a hundred thousand boxes", film[:32] + free + film[32:], SPOILED)
    yield Bad("23 a box of 64 bits", film[:32] + _huge_box() + film[32:], SPOILED)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("film.mp4", bytes(20_000_000))
    yield Bad("17 a bomb of zeros", archive.getvalue(), _NO_FILE)
    yield Bad("23 many streams", _many_streams(folder / "many.mkv"), SPOILED)


def polyglots(film: bytes) -> Iterator[Bad]:
    """11: two kinds of file in one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.py", "raise SystemExit")
    web = struct.pack(">I4s", 8 + 40, b"free") + b"<script>alert(1)</script>".ljust(40)
    parts = {
        "film, then a zip": (film + archive.getvalue(), GOOD),
        "a zip, then a film": (archive.getvalue() + film, _NO_FILE | {OK}),
        "film with a web page": (film[:32] + web + film[32:], SPOILED),
        "film twice": (film + film, GOOD),
        "a gif, then a film": (NOT_VIDEOS["gif"] + film, _NO_FILE),
        "a pdf, then a film": (NOT_VIDEOS["pdf"] + film, _NO_FILE | {OK}),
        "a playlist, then a film": (b"#EXTM3U\n" + film, _NO_FILE | {OK}),
        "film, then a playlist": (film + SCRIPTS["hls"].encode(), GOOD),
        "film, then noise": (film + np.random.default_rng(1).bytes(3000), GOOD),
    }
    for kind, (data, allowed) in parts.items():
        yield Bad(f"11 {kind}", data, allowed)


def spoiled(folder: Path, film: bytes) -> Iterator[Bad]:
    """13, 18, 20, 23: made from good files by the generator."""
    late = _plain(folder / "index-last.mp4").read_bytes()
    groups: Iterable[tuple[str, Iterable[Spoiled]]] = [
        ("13", mutations.truncations(film)),
        ("13 index last,", mutations.truncations(late)),
        ("13", mutations.removals(film)),
        ("13", mutations.swaps(film)),
        ("23", _every(3, mutations.lying_sizes(film))),
        ("18", _every(2, mutations.lying_tables(film))),
        ("20", mutations.flips(film, seed=1, count=40)),
        ("20 pictures only,", mutations.flips(film, seed=2, count=20, first=film.index(b"mdat"))),
        ("20", mutations.shuffled(film, seed=3, count=20)),
    ]
    for prefix, group in groups:
        for name, data in group:
            yield Bad(f"{prefix} {name}", data, SPOILED)
    for number, (name, codec) in enumerate(
        [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.ts", "libx264"), ("a.avi", "mpeg4"),
         ("a.flv", "libx264"), ("a.mpg", "mpeg1video")]
    ):  # fmt: skip
        data = _film(folder / name, codec=codec)
        others = chain(
            mutations.cuts(data, count=6),
            mutations.flips(data, seed=10 + number, count=8),
            mutations.shuffled(data, seed=20 + number, count=4),
        )
        for what, changed in others:
            yield Bad(f"20 {name} {what}", changed, SPOILED, name)


def _film(path: Path, *, codec: str = "libx264", width: int = 64, height: int = 64) -> bytes:
    pts = range(0, 1600, 40)
    return _plain(path, pts=pts, codec=codec, width=width, height=height).read_bytes()


def _plain(
    path: Path,
    *,
    pts: Iterable[int] = range(0, 800, 40),
    codec: str = "libx264",
    width: int = 64,
    height: int = 64,
    pix_fmt: str = "yuv420p",
) -> Path:
    time_base = Fraction(1, 1000)
    if codec.startswith(("mpeg1", "mpeg2")):  # they know some rates only
        pts, time_base = [stamp // 40 for stamp in pts], Fraction(1, 25)
    return write_film(
        path,
        pts=list(pts),
        time_base=time_base,
        codec=codec,
        width=width,
        height=height,
        pix_fmt=pix_fmt,
    )


def _sound(path: Path, codec: str) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 44100), np.int16), format="s16", layout="mono"
        )
        frame.rate = 44100
        if not isinstance(stream, av.AudioStream):
            raise TypeError(f"{codec} is not sound")
        for packet in chain(stream.encode(frame), stream.encode(None)):
            container.mux(packet)
    return path.read_bytes()


def _two_streams(path: Path) -> bytes:
    return _streams(path, count=2)


def _many_streams(path: Path) -> bytes:
    return _streams(path, count=60)


def _streams(path: Path, *, count: int) -> bytes:
    with av.open(str(path), "w") as container:
        streams = []
        for _ in range(count):
            stream = container.add_stream("mpeg4", rate=Fraction(25))
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        for number in range(3):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 80 * number, np.uint8))
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path.read_bytes()


def _huge_box() -> bytes:
    return struct.pack(">I4sQ", 1, b"free", 2**64 - 1)


def _every(step: int, group: Iterable[Spoiled]) -> Iterator[Spoiled]:
    for number, each in enumerate(group):
        if number % step == 0:
            yield each
