"""Framed messages between this process and its children: a JSON header and raw bytes.

Never pickle: what comes back from a child that has read a stranger's file must not be able to
run code here. The header is a JSON object, the payload is for arrays and may be empty.
"""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

FRAME: Final = struct.Struct(">IQ")
"""Sizes in bytes of the header and of the payload that follow."""

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024

Header = dict[str, Any]


def encode_message(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return one framed message."""
    text = json.dumps(header, allow_nan=True, separators=(",", ":")).encode()
    return FRAME.pack(len(text), len(payload)) + text + payload


class Channel:
    """The child's blocking end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """File descriptor, for selectors."""
        return self._connection.fileno()

    def receive(self) -> tuple[Header, bytes] | None:
        """Return the next message, or None when the parent closed its end or died."""
        frame = self._read(FRAME.size)
        if frame is None:
            return None
        header_bytes, payload_bytes = FRAME.unpack(frame)
        text = self._read(header_bytes)
        payload = self._read(payload_bytes)
        if text is None or payload is None:
            return None
        header: Header = json.loads(text)
        return header, payload

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send one message; blocks until the parent's buffer takes it."""
        self._connection.sendall(encode_message(header, payload))

    def _read(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(min(size - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)
