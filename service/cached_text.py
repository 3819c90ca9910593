"""The vector of one label, and the bytes that stand for it in Redis."""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_VALUE: Final = struct.Struct(">4sBII")
"""Magic, flags (1: truncated), dimension, CRC-32 of key and vector; the vector follows."""

_MAGIC: Final = b"vtx1"
_NORM_TOLERANCE: Final = 1e-3
_PREFIX: Final = b"vtag:text:"


@dataclass(frozen=True)
class CachedText:
    """The classifier vector of one label.

    Attributes:
        vector: float32 (D,), unit length.
        truncated: whether the tokenizer had to cut a text that it was made of.
    """

    vector: npt.NDArray[np.float32]
    truncated: bool


def redis_key(key: str) -> bytes:
    """Return the name of `key` in Redis: short, and free of what people typed."""
    return _PREFIX + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).digest()


def pack(key: str, value: CachedText) -> bytes:
    """Return the bytes that stand for `value` under `key` in Redis."""
    data = np.ascontiguousarray(value.vector, ">f4").tobytes()
    flags = int(value.truncated)
    check = zlib.crc32(data, zlib.crc32(redis_key(key) + bytes([flags])))
    return _VALUE.pack(_MAGIC, flags, len(value.vector), check) + data


def unpack(key: str, raw: bytes, *, dimension: int) -> CachedText | None:
    """Return the value of `pack`, or None if `raw` is not one for this key and dimension."""
    if len(raw) != _VALUE.size + 4 * dimension:
        return None
    magic, flags, size, check = _VALUE.unpack_from(raw)
    data = raw[_VALUE.size :]
    if magic != _MAGIC or flags > 1 or size != dimension:
        return None
    if check != zlib.crc32(data, zlib.crc32(redis_key(key) + bytes([flags]))):
        return None
    vector = np.frombuffer(data, ">f4").astype(np.float32)
    if not abs(float(np.linalg.norm(vector)) - 1.0) <= _NORM_TOLERANCE:  # also NaN
        return None
    return CachedText(vector, truncated=bool(flags))
