"""A generator that spoils good files: cuts, flips, swaps and lies, the same ones for a seed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Spoiled = tuple[str, bytes]

_HOLDS_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"})


@dataclass(frozen=True)
class Box:
    """A box of an MP4 file: its type, where it begins and ends, and the boxes it is in."""

    kind: bytes
    start: int
    end: int
    parents: tuple[int, ...]

    @property
    def name(self) -> str:
        """Type and place, for messages."""
        return f"{self.kind.decode('latin-1')}@{self.start}"


def boxes(data: bytes, start: int = 0, end: int | None = None, *, parents: tuple[int, ...] = ()
          ) -> list[Box]:  # fmt: skip
    """All boxes of a good file, parents before what they hold."""
    found: list[Box] = []
    end = len(data) if end is None else end
    while start + 8 <= end:
        size = struct.unpack(">I", data[start : start + 4])[0]
        box = Box(data[start + 4 : start + 8], start, start + size, parents)
        found.append(box)
        if box.kind in _HOLDS_BOXES:
            found += boxes(data, start + 8, box.end, parents=(*parents, start))
        start = box.end
    return found


def truncations(data: bytes) -> Iterator[Spoiled]:
    """The file up to the beginning of each box, and up to the middle of each."""
    for box in boxes(data):
        if box.start:
            yield f"cut before {box.name}", data[: box.start]
        yield f"cut in {box.name}", data[: (box.start + box.end) // 2]


def removals(data: bytes) -> Iterator[Spoiled]:
    """The file without each of its boxes; what holds it says so."""
    for box in boxes(data):
        yield f"without {box.name}", _without(data, box)


def swaps(data: bytes) -> Iterator[Spoiled]:
    """Each box changes places with the next one of the same parent."""
    found = boxes(data)
    for number, box in enumerate(found):
        after = next((b for b in found[number:] if b.start == box.end), None)
        if after is not None and after.parents == box.parents:
            pair = data[after.start : after.end] + data[box.start : box.end]
            yield f"{box.name} after {after.name}", data[: box.start] + pair + data[after.end :]


def lying_sizes(data: bytes) -> Iterator[Spoiled]:
    """A box that says it is empty, endless, shorter than its header, or 2^63 bytes long."""
    for box in boxes(data):
        for size in (0, 7, 8, 0xFFFFFFFF):
            lie = struct.pack(">I", size)
            yield f"{box.name} of {size} bytes", _put(data, box.start, lie)
    for box in boxes(data)[:3]:
        huge = struct.pack(">I4sQ", 1, box.kind, 2**63 - 1)
        yield f"{box.name} of 2^63 bytes", data[: box.start] + huge + data[box.start + 8 :]


_FIELDS = {
    # box: offsets of 32-bit fields after its type, and what they say
    b"mvhd": {12: "timescale", 16: "duration"},
    b"tkhd": {20: "duration"},
    b"mdhd": {12: "timescale", 16: "duration"},
    b"elst": {4: "entries", 8: "duration", 12: "media time"},
    b"stts": {4: "entries", 8: "count", 12: "delta"},
    b"ctts": {4: "entries", 12: "offset"},
    b"stsz": {4: "size", 8: "count", 12: "first size"},
    b"stsc": {4: "entries", 8: "first chunk", 12: "samples", 16: "description"},
    b"stco": {4: "entries", 8: "offset"},
    b"stss": {4: "entries", 8: "sample"},
}
_VALUES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def lying_tables(data: bytes) -> Iterator[Spoiled]:
    """Durations, time scales, counts, sizes, offsets: none, one, as large as can be, negative."""
    for box in boxes(data):
        for offset, name in _FIELDS.get(box.kind, {}).items():
            at = box.start + 4 + offset
            if at + 4 > box.end:
                continue
            for value in _VALUES:
                lie = struct.pack(">I", value)
                yield f"{name} of {box.name} is {value}", _put(data, at, lie)


def flips(data: bytes, *, seed: int, count: int, first: int = 0) -> Iterator[Spoiled]:
    """`count` files with one to sixty flipped bits each, from byte `first` on."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        spoiled = bytearray(data)
        for _ in range(int(draw.integers(1, 61))):
            spoiled[int(draw.integers(first, len(data)))] ^= 1 << int(draw.integers(0, 8))
        yield f"bits flipped, {number} of seed {seed}", bytes(spoiled)


def cuts(data: bytes, *, count: int) -> Iterator[Spoiled]:
    """The first parts of a file of any kind."""
    for part in np.linspace(0, len(data), count + 2).astype(int)[1:-1]:
        yield f"cut at {part} of {len(data)}", data[:part]


def shuffled(data: bytes, *, seed: int, count: int) -> Iterator[Spoiled]:
    """Pieces of 512 bytes moved about, doubled, dropped or zeroed."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        pieces = [data[at : at + 512] for at in range(0, len(data), 512)]
        for _ in range(3):
            one, other = draw.integers(0, len(pieces), 2)
            match int(draw.integers(0, 4)):
                case 0:
                    pieces[one], pieces[other] = pieces[other], pieces[one]
                case 1:
                    pieces.insert(one, pieces[other])
                case 2:
                    pieces[one] = b""
                case _:
                    pieces[one] = bytes(len(pieces[one]))
        yield f"pieces moved, {number} of seed {seed}", b"".join(pieces)


def _put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _without(data: bytes, box: Box) -> bytes:
    spoiled = bytearray(data)
    for parent in box.parents:
        size = struct.unpack(">I", spoiled[parent : parent + 4])[0] - (box.end - box.start)
        spoiled[parent : parent + 4] = struct.pack(">I", size)
    del spoiled[box.start : box.end]
    return bytes(spoiled)
