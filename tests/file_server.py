"""A server of files on loopback, as operators have one beside the service."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """What it has, what it was asked for, and whether it answers now."""

    files: dict[str, bytes]
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    limit: int = 1 << 30
    """Requests that are answered; others wait until it grows."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def host(self) -> str:
        """As the setting of internal servers names it."""
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"http://{self.host}/{name}"

    def answer_all(self) -> None:
        """From now on."""
        with self.changed:
            self.limit = 1 << 30
            self.changed.notify_all()


@contextmanager
def file_server(files: Mapping[str, bytes]) -> Iterator[FileServer]:
    """Run one."""
    found = FileServer(dict(files))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            with found.changed:
                found.asked[name] += 1
                found.changed.notify_all()
                found.changed.wait_for(lambda: found.asked.total() <= found.limit, timeout=60)
            data = found.files.get(name)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client was killed
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.answer_all()
        server.shutdown()
        server.server_close()
        thread.join()
