"""What kind of file a video is, by its first bytes; names and claims of clients do not count."""

from __future__ import annotations

from pathlib import Path
from typing import Final

UNKNOWN: Final = "application/octet-stream"

_HEAD_BYTES: Final = 4096
_ENDINGS: Final = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/matroska": "mkv",
    "video/x-msvideo": "avi",
    "video/mp2t": "ts",
    "video/mpeg": "mpg",
    "video/x-flv": "flv",
    "video/ogg": "ogv",
    "video/x-ms-asf": "asf",
}
_ASF: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_TS_PACKET: Final = 188


def content_type(path: Path) -> str:
    """Return the media type of a video file (names of RFC 9559 and IANA, else what is usual)."""
    with path.open("rb") as file:
        return _type(file.read(_HEAD_BYTES))


def ending(kind: str) -> str:
    """Return what the name of such a file ends in, for people who save it."""
    return _ENDINGS.get(kind, "bin")


def _type(head: bytes) -> str:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "video/quicktime" if head[4:12] != b"ftyp" + _brand(head) else _iso(_brand(head))
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    for start, kind in (
        (b"\x00\x00\x01\xba", "video/mpeg"),
        (b"FLV", "video/x-flv"),
        (b"OggS", "video/ogg"),
        (_ASF, "video/x-ms-asf"),
    ):
        if head.startswith(start):
            return kind
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:
        return "video/mp2t"
    return UNKNOWN


def _brand(head: bytes) -> bytes:
    return head[8:12]


def _iso(brand: bytes) -> str:
    return "video/quicktime" if brand == b"qt  " else "video/mp4"
