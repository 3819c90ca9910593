"""How the service leaves: unready first, then closed, then gone; at once if it is told twice."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Protocol

_log = logging.getLogger("vtag")


class Leaving(Protocol):
    """What is told that the end is near."""

    def drain(self) -> None:
        """Become unready; go on taking requests."""

    def close(self) -> None:
        """Take no more requests."""


class Server(Protocol):
    """What listens: uvicorn's server."""

    should_exit: bool
    force_exit: bool


class Departure:
    """Turns signals into the steps of leaving.

    SIGTERM comes from an orchestrator, whose load balancers go on sending for a while: the service
    is unready for `drain_seconds` and still answers. Ctrl-C comes from somebody who wants it gone:
    no such wait. Then requests in flight are finished; uvicorn ends those that take longer than
    its `timeout_graceful_shutdown`. A second signal of either kind waits for nothing.
    """

    def __init__(self, server: Server, *, service: Leaving, drain_seconds: float) -> None:
        self._server = server
        self._service = service
        self._drain_seconds = drain_seconds
        self._signals = 0
        self._timer: asyncio.TimerHandle | None = None

    def hear(self, number: int) -> None:
        """Take one signal."""
        self._signals += 1
        if self._signals > 1:
            _log.warning("told to stop again: requests in flight are dropped")
            self._server.force_exit = True
            self._exit()
        elif number == signal.SIGTERM and self._drain_seconds > 0:
            _log.info("stopping: not ready for %g s, then closed", self._drain_seconds)
            self._service.drain()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._drain_seconds, self._exit)
        else:
            _log.info("stopping")
            self._exit()

    def cancel(self) -> None:
        """Forget what was planned."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _exit(self) -> None:
        self.cancel()
        self._service.close()
        self._server.should_exit = True
