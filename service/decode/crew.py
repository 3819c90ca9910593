"""Decode children: started alike, lent one at a time, and replaced when they die."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, Literal

from service.child import Child, ChildDiedError
from service.decode.member import DEATHS, Why, Worker, WorkerSetup
from service.decode.sandbox import Protection

_log = logging.getLogger(__name__)

_TASKS_PER_WORKER: Final = 500
"""After this many videos a worker gets a successor: what leaks in decoders stays small."""

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LAST_BACKOFF_SECONDS: Final = 10.0
_FINISH_SECONDS: Final = 1.0
"""How long a video that nobody waits for any more may go on: to end its worker and start another
costs as much. With a start for each client that leaves, a crowd of them takes all processors."""

_PULSE_SECONDS: Final = 2.0
"""How often idle workers are asked whether they still answer."""

_PULSE_LATE_SECONDS: Final = 3.0
_PULSE_LIMIT_SECONDS: Final = 10.0
"""One that does not answer that is replaced, before a video is lost to it."""

Ending = Literal["answered", "died", "left", "overdue"]
"""How a call of a worker ended: its caller left, or its time was up."""


class NotRunningError(RuntimeError):
    """The workers were ended, or have not been started: no fault of the video."""


class Crew:
    """`count` workers, lent first come, first served.

    One that dies is replaced, with back-off when that happens again and again.
    """

    def __init__(self, setup: WorkerSetup, *, count: int) -> None:
        if count < 1:
            raise ValueError(f"{count} workers: at least 1")
        self._setup = setup
        self._count = count
        self._idle: asyncio.Queue[Worker | None] = asyncio.Queue()
        self._all: dict[Child, Worker] = {}
        self._lent: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._failures = 0
        self._succeeding = False
        self.stopped = False
        self.killed = dict.fromkeys(DEATHS, 0)
        """Workers that died or were killed since the start."""

    @property
    def replaced(self) -> int:
        """Workers that died or were killed since the start."""
        return sum(self.killed.values())

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return not self.stopped and self._folder is not None

    @property
    def idle(self) -> bool:
        """Whether a call sent now would not have to wait."""
        return not self._idle.empty()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Those whose process runs."""
        return tuple(worker for worker in self._all.values() if worker.child.alive)

    @property
    def stuck(self) -> bool:
        """Whether every worker is late with its answer: a video sent now would get nowhere."""
        now, workers = time.monotonic(), self.workers
        late = [each.late_at is not None and each.late_at < now for each in workers]
        return bool(late) and all(late)

    @property
    def protection(self) -> Protection:
        """What holds every worker; nothing while none runs."""
        found = [worker.protection for worker in self.workers]
        return Protection(
            system_calls=bool(found) and all(one.system_calls for one in found),
            files=bool(found) and all(one.files for one in found),
            reasons=next((one.reasons for one in found if one.reasons), ()),
        )

    async def start(self) -> None:
        """Start all workers and wait until they are ready; raises as `Worker.start`."""
        self._folder = tempfile.TemporaryDirectory(prefix="vtag-decode-")
        Path(self._folder.name).chmod(0o500)  # empty, and stays so
        try:
            await asyncio.gather(*(self._add() for _ in range(self._count)))
        except BaseException:
            await self.stop()
            raise
        self._spawn(self._feel_pulse(), name="decode-pulse")

    async def stop(self) -> None:
        """End all children; calls in flight raise RuntimeError. Safe to call twice."""
        self.stopped = True
        self._idle.put_nowait(None)  # wakes who waits for a worker
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in tuple(self._all.values())))
        self._all.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def take(self) -> Worker:
        """Wait for a worker that lives.

        Raises:
            RuntimeError: the crew is not running.
        """
        while self.running:
            worker = await self._idle.get()
            if worker is None:
                self._idle.put_nowait(None)  # for the next who waits
                break
            if worker.child.alive and worker.child in self._all:
                self._lent.add(worker.child)
                return worker
            await self.replace(worker, why="died")  # while it was idle
        raise not_running()

    async def give_back(self, worker: Worker) -> None:
        """Take back a worker that has answered."""
        self._lent.discard(worker.child)
        worker.late_at = None
        self._failures = 0
        worker.window.clear()
        if worker.successor is not None:
            self._retire(worker)
        elif worker.child.alive:
            self._idle.put_nowait(worker)
            if worker.tasks >= _TASKS_PER_WORKER and not self._succeeding:
                self._succeeding = True  # one at a time: two that start take all processors
                self._spawn(self._succeed(worker), name="decode-succeed")
        else:
            await self.replace(worker, why="died")

    async def end(self, worker: Worker, how: Ending) -> None:
        """Take a worker from its caller; one that is not done may finish if the caller left."""
        if how == "answered":
            await self.give_back(worker)
        elif how == "left" and not self.stopped:
            self._spawn(self._finish(worker), name="decode-finish")
        else:
            await self.replace(worker, why="timeout" if how == "overdue" else how)

    async def replace(self, worker: Worker, *, why: Why) -> None:
        """Kill a worker and start another in the background."""
        self._lent.discard(worker.child)
        if self._all.pop(worker.child, None) is None:
            return  # somebody else has seen it die
        self._failures += why in ("died", "hung")
        successor = None if self.stopped else worker.hand_over()
        try:
            await worker.kill()
        finally:
            self.killed[worker.death(why)] += 1
            if successor is not None:
                self._enlist(successor)
            elif not self.stopped:
                self._spawn(self._refill(), name="decode-refill")

    async def _succeed(self, old: Worker) -> None:
        """Start a successor of a worker that goes on working meanwhile: no video waits for it."""
        try:
            new = await self._start()
        except (OSError, ChildDiedError, TimeoutError) as error:
            _log.warning("decode worker %d has no successor yet (%s)", old.child.pid, error)
            return  # tried again after its next video
        finally:
            self._succeeding = False
        if old.child not in self._all:  # it died meanwhile and has been replaced already
            await new.kill()
            return
        old.successor = new
        if old.child not in self._lent:
            self._retire(old)

    def _retire(self, worker: Worker) -> None:
        """Let its successor work in the place of a worker."""
        self._lent.discard(worker.child)
        if self._all.pop(worker.child, None) is None:
            return  # it was ended
        successor = worker.hand_over()
        if successor is not None:
            self._enlist(successor)
        # Not waited for: who is woken by the successor must find the job of this worker gone.
        self._spawn(worker.kill(), name="decode-retire")

    async def _finish(self, worker: Worker) -> None:
        answered = False
        try:
            async with asyncio.timeout(_FINISH_SECONDS):
                await worker.child.call({"op": "pulse"})  # answered after what it is doing now
            answered = True
        except (TimeoutError, ChildDiedError):
            pass  # it hangs, or its video has ended it: both known, and nobody asks any more
        finally:
            if answered:
                await self.give_back(worker)
            else:
                await self.replace(worker, why="left")

    async def _feel_pulse(self) -> None:
        """Ask idle workers now and then: one that hangs must not cost a video its answer."""
        while True:
            await asyncio.sleep(_PULSE_SECONDS)
            while not self._idle.empty():
                worker = self._idle.get_nowait()
                if worker is None:  # the end: for whoever else waits
                    self._idle.put_nowait(None)
                    return
                self._lent.add(worker.child)
                self._spawn(self._ask(worker), name="decode-pulse")

    async def _ask(self, worker: Worker) -> None:
        worker.late_at = time.monotonic() + _PULSE_LATE_SECONDS
        answered = False
        try:
            async with asyncio.timeout(_PULSE_LIMIT_SECONDS):
                await worker.child.call({"op": "pulse"})
            answered = True
        except (TimeoutError, ChildDiedError):
            _log.warning("decode worker %d does not answer and is replaced", worker.child.pid)
        finally:
            if answered:
                await self.give_back(worker)
            else:
                await self.replace(worker, why="hung")

    async def _watch(self, worker: Worker) -> None:
        """Replace a worker that dies while it is idle: nobody may come who would notice."""
        await worker.child.wait()
        if worker.child not in self._lent:
            await self.replace(worker, why="died")

    def _spawn(self, work: Coroutine[None, None, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refill(self) -> None:
        # The first replacement comes at once: a bad video must not cost capacity. Only children
        # that keep dying (a broken installation, no memory) wait longer and longer.
        wait_seconds = 0.0
        if self._failures > self._count:
            wait_seconds = min(
                _FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - self._count, 10),
                _LAST_BACKOFF_SECONDS,
            )
        while True:
            await asyncio.sleep(wait_seconds)
            try:
                await self._add()
                return
            except (OSError, ChildDiedError, TimeoutError) as error:
                wait_seconds = min(
                    max(2 * wait_seconds, _FIRST_BACKOFF_SECONDS), _LAST_BACKOFF_SECONDS
                )
                _log.warning("decode worker did not start (%s), again in %g s", error, wait_seconds)

    async def _add(self) -> None:
        self._enlist(await self._start())

    async def _start(self) -> Worker:
        if self._folder is None:
            raise not_running()
        return await Worker.start(self._setup, folder=Path(self._folder.name))

    def _enlist(self, worker: Worker) -> None:
        self._all[worker.child] = worker
        self._idle.put_nowait(worker)
        self._spawn(self._watch(worker), name="decode-watch")


def not_running() -> NotRunningError:
    """Return the error of calls that come too early or too late."""
    return NotRunningError("the decode pool is not running")
