"""A child process of this one: started clean, spoken to in framed messages, surely ended.

Why not a pool library: Pebble's workers share one pipe and two locks, so a worker that is killed
while it holds a lock or is writing takes the others with it; killing an *idle* worker breaks the
pool ("All workers expired"); a cancelled future is done before its worker is dead, so its frame
slot would be lent again while the old worker may still write into it; and results are unpickled.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.channel import FRAME, MAX_HEADER_BYTES, Header, encode_message

_SOURCES = str(Path(__file__).resolve().parent.parent)


class ChildDiedError(Exception):
    """The child ended, or broke the protocol and was ended, before it answered.

    Attributes:
        status: exit status, negative: the signal that ended it; None: not known yet.
    """

    def __init__(self, name: str, *, status: int | None) -> None:
        super().__init__(f"{name} worker ended with status {status}")
        self.status = status


class Child:
    """One running child. Make it with `Child.start`; every method belongs to the event loop."""

    def __init__(
        self,
        name: str,
        *,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_payload_bytes: int,
    ) -> None:
        self._name = name
        self._process = process
        self._reader = reader
        self._writer = writer
        self._max_payload_bytes = max_payload_bytes
        self._pending: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
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
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "service.child_main"),
                *(str(theirs.fileno()), str(os.getpid()), module),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": python_path, "PYTHONFAULTHANDLER": "1"},
                cwd=folder,
                pass_fds=(theirs.fileno(), *descriptors),
                process_group=0,
            )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # a child that did start sees the end of its channel and leaves
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
    def alive(self) -> bool:
        """Whether it runs and is connected."""
        return self._process.returncode is None and not self._listening.done()

    async def call(
        self, header: Mapping[str, Any], *, payload: bytes = b""
    ) -> tuple[Header, bytes]:
        """Send a message and return the answer to it; answers may come in any order.

        Raises:
            ChildDiedError: it ended before it answered.
        """
        if not self.alive:
            raise ChildDiedError(self._name, status=self._process.returncode)
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
            raise ChildDiedError(self._name, status=self._process.returncode) from None
        finally:
            self._pending.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # mark as seen: the write may have failed first

    async def wait(self) -> int:
        """Return the exit status once it has ended and been reaped."""
        return await self._process.wait()

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
        self._writer.close()
        try:
            return await asyncio.wait_for(self._process.wait(), grace_seconds)
        except TimeoutError:
            pass
        finally:
            await self.kill()
        return await self._process.wait()

    async def _kill(self) -> int:
        if self._process.returncode is None:
            self._process.kill()
        status = await self._process.wait()
        self._writer.close()
        self._listening.cancel()
        await asyncio.wait([self._listening])
        return status

    async def _listen(self) -> None:
        try:
            while True:
                frame = await self._reader.readexactly(FRAME.size)
                header_bytes, payload_bytes = FRAME.unpack(frame)
                if header_bytes > MAX_HEADER_BYTES or payload_bytes > self._max_payload_bytes:
                    break
                header = _parse(await self._reader.readexactly(header_bytes))
                payload = await self._reader.readexactly(payload_bytes)
                waiting = self._pending.get(header.get("id", 0)) if header else None
                if waiting is None:
                    # Nobody waits any more (cancelled), or it makes answers up: both harmless.
                    continue
                if not waiting.done():
                    waiting.set_result((header, payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self._process.returncode is None:
                # Connected no more: it is dying, or must.
                self._process.kill()
            status = self._process.returncode
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(ChildDiedError(self._name, status=status))


def _parse(text: bytes) -> Header:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
