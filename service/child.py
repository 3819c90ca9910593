"""A child process of this one: started clean, spoken to in framed messages, surely ended.

Why not a pool library: Pebble's workers share one pipe and two locks, so a worker that is killed
while it holds a lock or is writing takes the others with it; killing an *idle* worker breaks the
pool ("All workers expired"); a cancelled future is done before its worker is dead, so its frame
slot would be lent again while the old worker may still write into it; and results are unpickled.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from service.channel import FRAME, MAX_HEADER_BYTES, Header, encode_message
from service.logs import to_child

_SOURCES = str(Path(__file__).resolve().parent.parent)


class ChildDiedError(Exception):
    """The child ended, or broke the protocol and was ended, before it answered.

    Attributes:
        status: exit status, negative: the signal that ended it; None: not known yet.
        taken: whether it had said that it began with this call.
    """

    def __init__(self, name: str, *, status: int | None, taken: bool) -> None:
        super().__init__(f"{name} worker ended with status {status}")
        self.status = status
        self.taken = taken


class Child:
    """One running child. Make it with `Child.start`; every method belongs to the event loop."""

    def __init__(
        self,
        name: str,
        *,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_payload_bytes: int,
    ) -> None:
        self._name = name
        self._process = process
        # asyncio's own subprocesses lose exit statuses (a signal polls, and so reaps, behind the
        # back of the thread that waits); a pidfd tells of the end, and no signal can go astray.
        self._handle = os.pidfd_open(process.pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._handle, self._reap)
        self._leaving = False
        self._reader = reader
        self._writer = writer
        self._max_payload_bytes = max_payload_bytes
        self._pending: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
        self._taken: set[int] = set()
        self._last_id = 0
        self._listening = asyncio.create_task(self._listen(), name=f"{name}-listen")

    @classmethod
    async def start(
        cls,
        module: str,
        *,
        name: str,
        environment: Mapping[str, str],
        folder: Path,
        descriptors: Sequence[int] = (),
        max_payload_bytes: int = 0,
    ) -> "Child":
        """Start `module.serve` in a fresh interpreter.

        It inherits no descriptor but `descriptors`, its channel and standard error, no variable
        but `environment`, and works in `folder`. It is in a process group of its own: no
        terminal signal reaches it.

        Args:
            module: full name of a module with `serve(channel)`.
            name: for messages.
            environment: the whole environment.
            folder: working directory.
            descriptors: file descriptors it keeps, under the same numbers.
            max_payload_bytes: an answer with a larger payload ends the child.

        Raises:
            OSError: no process or no descriptor left.
        """
        # Where this package and its dependencies were found, wherever that is.
        python_path = os.pathsep.join(filter(None, [_SOURCES, os.environ.get("PYTHONPATH")]))
        ours, theirs = socket.socketpair()
        process = None
        try:
            process = subprocess.Popen(  # noqa: S603 - our interpreter, our module
                [
                    *(sys.executable, "-P", "-m", "service.child_main"),
                    *(str(theirs.fileno()), str(os.getpid()), to_child(), module),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": python_path, "PYTHONFAULTHANDLER": "1"},
                cwd=folder,
                pass_fds=(theirs.fileno(), *descriptors),
                process_group=0,
            )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            raise
        finally:
            theirs.close()
        return cls(
            name, process=process, reader=reader, writer=writer, max_payload_bytes=max_payload_bytes
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative: the signal that ended it; None: it runs."""
        return self._process.returncode if self._ended.is_set() else None

    @property
    def alive(self) -> bool:
        """Whether it runs and is connected."""
        return not self._ended.is_set() and not self._listening.done()

    async def call(
        self, header: Mapping[str, Any], *, payload: bytes = b""
    ) -> tuple[Header, bytes]:
        """Send a message and return the answer to it; answers may come in any order.

        A child may answer `{"taken": true}` first, to say that it has begun.

        Raises:
            ChildDiedError: it ended before it answered.
        """
        if not self.alive:
            raise ChildDiedError(self._name, status=self._process.returncode, taken=False)
        self._last_id += 1
        number = self._last_id
        answer = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            self._writer.write(encode_message({**header, "id": number}, payload))
            await self._writer.drain()
            result: tuple[Header, bytes] = await answer
            return result
        except ConnectionError:
            await self.kill()
            status = self._process.returncode
            raise ChildDiedError(self._name, status=status, taken=number in self._taken) from None
        finally:
            self._pending.pop(number, None)
            self._taken.discard(number)
            if answer.done() and not answer.cancelled():
                answer.exception()  # mark as seen: the write may have failed first

    async def wait(self) -> int:
        """Return the exit status once it has ended and been reaped."""
        await self._ended.wait()
        return int(self._process.returncode)

    async def kill(self) -> int:
        """SIGKILL, reap, and return the exit status. Afterwards it writes nothing any more.

        Completes even when the caller is cancelled meanwhile; safe to call twice.
        """
        ending = asyncio.ensure_future(self._kill())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def stop(self, *, grace_seconds: float) -> int:
        """Close the channel, give it time to leave, then kill; return the exit status."""
        self._leaving = True
        self._writer.close()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()
        return await self.wait()

    async def _kill(self) -> int:
        self._send_kill()
        status = await self.wait()
        self._writer.close()
        self._listening.cancel()
        await asyncio.wait([self._listening])
        return status

    def _send_kill(self) -> None:
        if not self._ended.is_set():
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self._process.wait()
        os.close(self._handle)
        self._ended.set()

    async def _listen(self) -> None:
        try:
            while True:
                frame = await self._reader.readexactly(FRAME.size)
                header_bytes, payload_bytes = FRAME.unpack(frame)
                if header_bytes > MAX_HEADER_BYTES or payload_bytes > self._max_payload_bytes:
                    break
                header = _parse(await self._reader.readexactly(header_bytes))
                payload = await self._reader.readexactly(payload_bytes)
                number = header["id"] if isinstance(header.get("id"), int) else 0
                waiting = self._pending.get(number)
                if waiting is None or waiting.done():
                    # Nobody waits any more (cancelled), or it makes answers up: both harmless.
                    continue
                if header.get("taken"):
                    self._taken.add(number)
                else:
                    waiting.set_result((header, payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if not self._leaving:
                self._send_kill()  # connected no more: it is dying, or must
            status = self._process.returncode
            for number, waiting in self._pending.items():
                if not waiting.done():
                    taken = number in self._taken
                    waiting.set_exception(ChildDiedError(self._name, status=status, taken=taken))


def resident_bytes(pids: Iterable[int | None]) -> int:
    """Return the memory that those of the processes take that run."""
    total = 0
    for pid in pids:
        try:
            total += 0 if pid is None else psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it has just ended
    return total


def _parse(text: bytes) -> Header:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
