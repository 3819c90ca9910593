"""A receiver of webhooks on loopback that answers as it is told and keeps what it got."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - of the specification's examples


@dataclass
class Receiver:
    """What came, and what is answered: one status after the other, then the last for ever."""

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [200])
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def host(self) -> str:
        """As the setting of internal receivers names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://{self.host}/hooks?token=x"

    @property
    def ids(self) -> set[str]:
        """Of everything that came."""
        return {headers["webhook-id"] for headers in self.headers}

    def event(self, number: int = -1) -> Any:
        """What came, if its signature is right."""
        return Webhook(SECRET).verify(self.bodies[number], self.headers[number])


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run one."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = found.statuses[min(len(found.bodies), len(found.statuses) - 1)]
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            found.bodies.append(body)
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
