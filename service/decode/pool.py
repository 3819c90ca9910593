"""A pool of killable child processes that decode; one bad video costs one request its answer."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from service.channel import Header
from service.child import Child, ChildDiedError
from service.decode.answers import (
    DecodedInfo,
    checked,
    decode_failed,
    decoded_info,
    video_info,
)
from service.frames import FrameSlots, Slot
from service.videoclip.decoding import Limits, VideoInfo
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing, Sampling

_log = logging.getLogger(__name__)

_TASKS_PER_WORKER: Final = 500
"""A worker is replaced after this many videos: what leaks in decoders stays small."""

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LAST_BACKOFF_SECONDS: Final = 10.0
_START_SECONDS: Final = 60.0
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")


@dataclass
class _Worker:
    """A child and what the pool knows about it."""

    child: Child
    tasks: int = field(default=0)


class DecodePool:
    """`workers` children that wait for videos, first come, first served.

    A worker that hangs is killed at its wall-clock limit, one that dies is replaced (with
    back-off when that happens again and again). When `decode` has returned or raised, nothing
    writes into the slot any more: a worker whose caller left is killed and reaped first.

    Args:
        slots: the arena that pixels go to; it must outlive the pool.
        workers: number of children.
        limits: what a video may be.
        timeout_seconds: wall-clock seconds for one video; processor time is limited to four
            times that.
        memory_bytes: address space of a child.
    """

    def __init__(
        self,
        slots: FrameSlots,
        *,
        workers: int,
        limits: Limits,
        timeout_seconds: float,
        memory_bytes: int = 4 * 1024**3,
    ) -> None:
        if workers < 1 or timeout_seconds <= 0:
            raise ValueError(f"workers={workers}, timeout_seconds={timeout_seconds}: above 0")
        self._slots = slots
        self._count = workers
        self._limits = limits
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        self._all: set[Child] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stopped = False
        self._failures = 0
        self.waiting = 0
        """Videos that wait for a worker."""
        self.busy = 0
        """Workers that decode now."""
        self.replaced = 0
        """Workers that died or were killed since the start."""

    @property
    def alive(self) -> int:
        """Number of running workers."""
        return sum(child.alive for child in self._all)

    @property
    def ready(self) -> bool:
        """Whether a video sent now would be decoded: started, and a worker runs."""
        return not self._stopped and self._folder is not None and self.alive > 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the running workers."""
        return tuple(child.pid for child in self._all if child.alive)

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            OSError: processes cannot be started here.
            ChildDiedError: a worker ended while starting.
            TimeoutError: a worker did not become ready in a minute.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="vtag-decode-")
        Path(self._folder.name).chmod(0o500)  # empty, and stays so
        try:
            await asyncio.gather(*(self._add_worker() for _ in range(self._count)))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End all children; calls in flight raise RuntimeError. Safe to call twice."""
        self._stopped = True
        self._idle.put_nowait(None)  # wakes who waits for a worker
        for task in tuple(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(child.kill() for child in tuple(self._all)))
        self._all.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def probe(self, path: Path) -> VideoInfo:
        """Return what the container says about the video at `path`.

        Raises:
            VideoError: see `decode`.
        """
        answer = await self._call({"op": "probe", "path": str(path.absolute())})
        return video_info(answer)

    async def decode(
        self,
        path: Path,
        *,
        sampling: Sampling,
        preprocessing: Preprocessing,
        slot: Slot,
        spans: Sequence[tuple[float, float]] | None = None,
    ) -> DecodedInfo:
        """Decode the clips of `sampling` from the video at `path` into `slot`.

        Args:
            path: a local file.
            sampling: which frames.
            preprocessing: resize and crop.
            slot: its shape must be (clips, frames, S, S, 3) of what is asked.
            spans: seconds (start, end), each gives `sampling.views` clips; None: the video.

        Raises:
            VideoError: the video's fault; code `decode_timeout` when it took too long,
                `decode_failed` when the decoder failed, died or wanted too much memory.
        """
        answer = await self._call(
            {
                "op": "decode",
                "path": str(path.absolute()),
                "sampling": sampling.model_dump_json(),
                "preprocessing": preprocessing.model_dump_json(),
                "spans": None if spans is None else [list(span) for span in spans],
                "slot": {"offset": slot.offset, "shape": list(slot.shape)},
            }
        )
        return decoded_info(answer, slot=slot)

    async def _call(self, header: Header) -> Header:
        while True:
            if self._stopped or self._folder is None:
                raise RuntimeError("the decode pool is not running")
            answer = await self._try(await self._take(), header)
            if answer is not None:
                return checked(answer)

    async def _try(self, worker: _Worker, header: Header) -> Header | None:
        """Return the worker's answer; None if it died before it took the video."""
        self.busy += 1
        returned = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer, _ = await worker.child.call(
                    {**header, "processor_seconds": 4 * self._timeout_seconds}
                )
            worker.tasks += 1
            returned = worker.tasks < _TASKS_PER_WORKER
            self._failures = 0
            return answer
        except TimeoutError:
            raise VideoError(
                "Decoding took longer than allowed.",
                code="decode_timeout",
                limit=self._timeout_seconds,
            ) from None
        except ChildDiedError as error:
            status = await worker.child.wait()
            self._failures += 1
            _log.warning("decode worker %d ended with status %d", worker.child.pid, status)
            if self._stopped:
                raise RuntimeError("the decode pool is not running") from None
            if not error.taken:
                return None
            raise decode_failed() from None
        finally:
            self.busy -= 1
            if returned:
                self._idle.put_nowait(worker)
            else:
                await self._replace(worker.child)

    async def _take(self) -> _Worker:
        self.waiting += 1
        try:
            while True:
                worker = await self._idle.get()
                if worker is None:
                    self._idle.put_nowait(None)  # for the next who waits
                    raise RuntimeError("the decode pool is not running")
                if worker.child.alive:
                    return worker
                await self._replace(worker.child)  # it died while it was idle
        finally:
            self.waiting -= 1

    async def _replace(self, child: Child) -> None:
        try:
            await child.kill()
        finally:
            self._all.discard(child)
            self.replaced += 1
            if not self._stopped:
                task = asyncio.create_task(self._refill(), name="decode-refill")
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)

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
                await self._add_worker()
                return
            except (OSError, ChildDiedError, TimeoutError) as error:
                wait_seconds = min(
                    max(2 * wait_seconds, _FIRST_BACKOFF_SECONDS), _LAST_BACKOFF_SECONDS
                )
                _log.warning("decode worker did not start (%s), again in %g s", error, wait_seconds)

    async def _add_worker(self) -> None:
        if self._folder is None:
            raise RuntimeError("the decode pool is not running")
        environment: dict[str, str] = {
            name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ
        }
        child = await Child.start(
            "service.decode.worker",
            name="decode",
            # Few arenas: each thread's would take 64 MiB of the limited address space.
            environment={**environment, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"},
            folder=Path(self._folder.name),
            descriptors=(self._slots.descriptor,),
        )
        self._all.add(child)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child.call(
                    {
                        "op": "configure",
                        "limits": asdict(self._limits),
                        "descriptor": self._slots.descriptor,
                        "memory_bytes": self._memory_bytes,
                    }
                )
        except BaseException:
            await child.kill()
            self._all.discard(child)
            raise
        self._idle.put_nowait(_Worker(child))
