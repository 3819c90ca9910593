"""One decode child as the event loop sees it: started in its sandbox, spoken to, ended."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from service.channel import Header
from service.child import Child, ChildDiedError
from service.decode.sandbox import Protection, SandboxError, SandboxMode
from service.frames import Window
from service.tracing import asked, here, past, span
from service.videoclip.decoding import Limits

_START_SECONDS: Final = 60.0
_STUCK_SECONDS: Final = 5.0
_STUCK_FACTOR: Final = 4.0
"""A call that takes so many times what was predicted, and so long, does not get on."""
Why = Literal["timeout", "died", "hung", "left"]
"""Why a worker is replaced, see `DEATHS`; `died`: nobody wanted that."""

DEATHS: Final = ("timeout", "signal", "exit", "hung", "left")
"""How workers end that are replaced: killed at the time limit of a call; by a signal or an exit of
their own; killed because they did not answer while idle, or because their client had left."""

_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True)
class WorkerSetup:
    """What every decode child is given.

    Attributes:
        limits: what a video may be.
        memory_bytes: address space.
        window_bytes: most that the pixels of one call take.
        sandbox: whether it has to be complete.
    """

    limits: Limits
    memory_bytes: int
    window_bytes: int
    sandbox: SandboxMode


@dataclass
class Worker:
    """A child that decodes one video at a time.

    Attributes:
        child: the process.
        files: our end of the socket that its files go through.
        window: where it leaves pixels.
        protection: what it says, before it has seen a file, that holds it.
        tasks: videos that it has had.
        successor: what works in its place once it is given back; None: it stays.
        late_at: `time.monotonic()` at which its call takes longer than it may; None: it is idle.
        ends_at: the same, at which its call is ended.
    """

    child: Child
    files: socket.socket
    window: Window
    protection: Protection
    tasks: int = field(default=0)
    successor: Worker | None = field(default=None)
    late_at: float | None = field(default=None)
    ends_at: float = field(default=math.inf)

    @classmethod
    async def start(cls, setup: WorkerSetup, *, folder: Path) -> Worker:
        """Start a child in `folder` and wait until it is ready.

        Raises:
            OSError: no process or no descriptor left.
            SandboxError: the sandbox that is required is not to be had here.
            ChildDiedError: it ended while starting.
            TimeoutError: it did not become ready in a minute.
        """
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        async with AsyncExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            ours.setblocking(False)
            window = Window(setup.window_bytes)
            undo.callback(window.close)
            with theirs:
                child = await Child.start(
                    "service.decode.worker",
                    name="decode",
                    # Few arenas: each thread's would take 64 MiB of the limited address space.
                    environment={**environment, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"},
                    folder=folder,
                    descriptors=(window.descriptor, theirs.fileno()),
                )
                undo.push_async_callback(child.kill)
                async with asyncio.timeout(_START_SECONDS):
                    answer, _ = await child.call(
                        {
                            "op": "configure",
                            "limits": asdict(setup.limits),
                            "window": window.descriptor,
                            "files": theirs.fileno(),
                            "memory_bytes": setup.memory_bytes,
                            "sandbox": setup.sandbox,
                        }
                    )
            protection = Protection(
                system_calls=bool(answer["system_calls"]),
                files=bool(answer["files"]),
                reasons=tuple(answer["reasons"]),
            )
            if setup.sandbox == "require" and not protection.complete:
                raise SandboxError(
                    "VTAG_DECODE_SANDBOX=require: this host does not allow the sandbox of "
                    f"decode workers: {'; '.join(protection.reasons)}"
                )
            undo.pop_all()
        return cls(child, ours, window, protection)

    async def call(self, header: Header, *, file: int) -> Header:
        """Send a message and the open `file` it is about; return the answer.

        Raises:
            ChildDiedError: the child ended before it answered.
        """
        self.tasks += 1
        try:
            socket.send_fds(self.files, [b"\0"], [file])
        except OSError:  # it is gone, or does not take its files
            await self.child.kill()
            raise ChildDiedError("decode", status=None, taken=False) from None
        began = time.monotonic()
        with span("decode", {"vtag.operation": header["op"]}):
            answer, _ = await self.child.call({**header, **asked()})
            past("decode child", answer.pop("worked", None), since=began, at=here())
        return answer

    def expect(self, seconds: float, *, limit_seconds: float) -> None:
        """Expect the answer to a call that begins now in about so many seconds."""
        now = time.monotonic()
        self.late_at = now + max(_STUCK_SECONDS, _STUCK_FACTOR * seconds)
        self.ends_at = now + limit_seconds

    def death(self, why: Why) -> str:
        """Return which of `DEATHS` it died, once it has ended."""
        if why != "died":
            return why
        return "exit" if (self.child.status or 0) >= 0 else "signal"

    def hand_over(self) -> Worker | None:
        """Return the successor, which is the caller's from now on."""
        successor, self.successor = self.successor, None
        return successor

    async def kill(self) -> None:
        """End it, and a successor that is still its own; afterwards neither reads nor writes."""
        try:
            if self.successor is not None:
                await self.successor.kill()
        finally:
            self.files.close()
            try:
                await self.child.kill()
            finally:  # who waits for the end may be cancelled; the child has ended all the same
                self.window.close()
