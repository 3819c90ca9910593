"""A loopback TCP proxy that can be slow, deaf or gone: a network between two processes."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Final

_CHUNK: Final = 65536


class TcpProxy:
    """Forwards connections on a port of its own to one target.

    Args:
        target: host and port, or the path of a Unix socket.

    Attributes:
        delay_seconds: every piece of data waits so long, in both directions.
        deaf: data is taken and not passed on; nothing is answered.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self.delay_seconds = 0.0
        self.deaf = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """Forward as if nothing had been; what was withheld is lost with its connections."""
        self.delay_seconds = 0.0
        if self.deaf:
            self.deaf = False
            self.cut()

    def cut(self) -> None:
        """Break every connection that is open now."""
        with self._lock:
            broken = list(self._open)
        for each in broken:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no connection any more and break those that are open."""
        self._closed = True
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            server = socket.create_connection(self._target, timeout=10)
            server.settimeout(None)
            return server
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if not self.deaf:
                    sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        with self._lock:
            self._open -= {source, sink}
