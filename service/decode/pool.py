"""A pool of killable child processes that decode; one bad video costs one request its answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from service.channel import Header
from service.child import ChildDiedError
from service.deadline import reached
from service.decode.answers import (
    DecodedInfo,
    checked,
    decode_failed,
    decoded_info,
    video_header,
    video_info,
)
from service.decode.backlog import Backlog, Job
from service.decode.cost import CostModel, Prediction
from service.decode.crew import Crew, Ending, not_running
from service.decode.files import opened
from service.decode.member import Worker, WorkerSetup
from service.decode.refining import refined
from service.decode.sandbox import Protection, SandboxMode
from service.frames import FrameSlots, Slot
from service.tracing import traced
from service.videoclip.decoding import Limits, VideoInfo
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing, Sampling

_log = logging.getLogger(__name__)

Span = tuple[float, float]  # seconds, half-open
_HEADER_SECONDS: Final = 2.0  # longer is not worth it: then predictions go by the size


class DecodePool:
    """`workers` children that wait for videos, first come, first served.

    A worker that hangs is killed at its wall-clock limit, one that dies is replaced. One whose
    caller left may finish, for a moment. Workers write into windows of their own; slots are filled
    from these here. One more child reads headers only, for predictions.

    Args:
        slots: where pixels go; they must outlive the pool.
        workers: number of children.
        limits: what a video may be.
        timeout_seconds: wall-clock seconds for one video; processor time is limited to four
            times that.
        memory_bytes: address space of a child.
        sandbox: whether children give up network, processes and files (`service.decode.sandbox`):
            where the host allows it, or else not start at all, or never.
    """

    def __init__(
        self,
        slots: FrameSlots,
        *,
        workers: int,
        limits: Limits,
        timeout_seconds: float,
        memory_bytes: int = 4 * 1024**3,
        sandbox: SandboxMode = "auto",
    ) -> None:
        if workers < 1 or timeout_seconds <= 0:
            raise ValueError(f"workers={workers}, timeout_seconds={timeout_seconds}: above 0")
        setup = WorkerSetup(limits, memory_bytes, slots.slot_bytes, sandbox)
        self._slots = slots
        self._crew = Crew(setup, count=workers)
        self._header_crew = Crew(setup, count=1)
        self._timeout_seconds = timeout_seconds
        self.backlog = Backlog(workers=workers)  # to be read only
        self.costs = CostModel()  # predicts decoding times; learns from every video
        self.busy = 0  # workers that decode now

    @property
    def alive(self) -> int:
        """Number of running workers."""
        return len(self._crew.workers)

    @property
    def ready(self) -> bool:
        """Whether a video sent now would be decoded: started, and a worker runs and gets on."""
        return self._crew.running and self.alive > 0 and not self._crew.stuck

    @property
    def state(self) -> str:
        """``ok``; ``degraded``: without its full sandbox; ``stuck``: none gets on; ``down``."""
        if not self.ready:
            return "stuck" if self._crew.stuck else "down"
        return "ok" if self.protection.complete else "degraded"

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the running workers."""
        return tuple(worker.child.pid for worker in self._crew.workers)

    @property
    def waiting(self) -> int:
        """Videos that wait for a worker."""
        return self.backlog.waiting

    @property
    def replaced(self) -> int:
        """Workers that died or were killed since the start."""
        return self._crew.replaced + self._header_crew.replaced

    @property
    def killed(self) -> Mapping[str, int]:
        """The same by how, see `DEATHS`."""
        return {how: self._header_crew.killed[how] + n for how, n in self._crew.killed.items()}

    @property
    def protection(self) -> Protection:
        """What holds the workers."""
        return self._crew.protection

    @property
    def window_bytes(self) -> int:
        """Memory that the workers' windows of pixels take now."""
        return sum(worker.window.resident_bytes for worker in self._crew.workers)

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until a video sent now begins to decode; 0: a worker is idle."""
        return self.backlog.seconds

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            OSError: processes cannot be started here, or not in the sandbox that is required.
            ChildDiedError: a worker ended while starting.
            TimeoutError: a worker did not become ready in a minute.
        """
        try:
            await asyncio.gather(self._crew.start(), self._header_crew.start())
        except BaseException:
            await self.stop()
            raise
        if not self.protection.complete:
            reasons = "; ".join(self.protection.reasons)
            _log.warning("decode workers run without their full sandbox: %s", reasons)

    async def stop(self) -> None:
        """End all children; calls in flight raise RuntimeError. Safe to call twice."""
        await asyncio.gather(self._crew.stop(), self._header_crew.stop())

    async def predict(
        self,
        path: Path,
        *,
        sampling: Sampling,
        spans: Sequence[Span] | None = None,
    ) -> Prediction:
        """Return what `decode` will take; VideoError if the header rules the video out."""
        with opened(path) as (file, size_bytes):
            return await self._predict(file, size_bytes, sampling, spans)

    async def probe(self, path: Path) -> VideoInfo:
        """Return what the packets of the video at `path` say about it; raises as `decode`."""
        return video_info(await self.ask(path, {"op": "probe"}))

    async def ask(self, path: Path, header: Header, *, share: float = 1.0) -> Header:
        """Return a child's answer to any message about the video at `path`.

        Args:
            path: a local file.
            header: `op` and what belongs to it, see `service.decode.worker`.
            share: of the file that it has to do with, for predictions.

        Raises:
            VideoError: see `decode`.
        """
        with (
            opened(path) as (file, size_bytes),
            self.backlog.job(self.costs.predict_size(int(share * size_bytes))) as job,
        ):
            answer, _ = await self._call(header, file, job)
        return answer

    async def decode(
        self,
        path: Path,
        *,
        sampling: Sampling,
        preprocessing: Preprocessing,
        slot: Slot,
        spans: Sequence[Span] | None = None,
        prediction: Prediction | None = None,
        deadline: float | None = None,
    ) -> DecodedInfo:
        """Decode the clips of `sampling` from the video at `path` into `slot`.

        Args:
            path: a local file.
            sampling: which frames.
            preprocessing: resize and crop.
            slot: its shape must be (clips, frames, S, S, 3) of what is asked.
            spans: seconds (start, end), each gives `sampling.views` clips; None: the video.
            prediction: from `predict`, if that was asked; None: it is asked here if the video has
                to wait anyway.
            deadline: `time.monotonic()` at which the pictures are worthless. One that waits, and
                whose decoding alone surely takes longer, does not wait.

        Raises:
            DeadlineExceededError: it would surely come too late.
            VideoError: the video's fault; code `decode_timeout` when it took too long,
                `decode_failed` when the decoder failed, died or wanted too much memory.
        """
        with (
            opened(path) as (file, size_bytes),
            self.backlog.job(prediction or self.costs.predict_size(size_bytes)) as job,
        ):
            message = {
                "op": "decode",
                "sampling": sampling.model_dump_json(),
                "preprocessing": preprocessing.model_dump_json(),
                "spans": None if spans is None else [list(span) for span in spans],
                "slot": {"offset": slot.offset, "shape": list(slot.shape)},
            }
            call = self._call(message, file, job)
            if prediction is None and not self._crew.idle:
                better = self._predict(file, size_bytes, sampling, spans)
                call = refined(call, job, better=better, deadline=deadline)
            answer, seconds = await call
            self.costs.learn(job.prediction, seconds)
        return decoded_info(answer, slot=slot)

    async def _predict(
        self, file: int, size_bytes: int, sampling: Sampling, spans: Sequence[Span] | None
    ) -> Prediction:
        try:
            async with asyncio.timeout(_HEADER_SECONDS):
                worker = await self._header_crew.take()
                answer = await self._ask(self._header_crew, worker, {"op": "header"}, file)
        except TimeoutError:
            answer = None
        if answer is None or "failure" in answer:
            return self.costs.predict_size(size_bytes)
        header = video_header(checked(answer))
        return self.costs.predict(header, sampling=sampling, spans=spans)

    async def _call(self, header: Header, file: int, job: Job) -> tuple[Header, float]:
        """Return the answer and the seconds that it took, without those of waiting."""
        while True:
            worker = await traced("decode queue", self._crew.take())
            job.began = time.monotonic()
            reached("decode")
            worker.expect(job.prediction.seconds, limit_seconds=self._timeout_seconds)
            self.busy += 1
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await self._ask(self._crew, worker, header, file)
            except TimeoutError:
                raise VideoError(
                    "Decoding took longer than VTAG_DECODE_TIMEOUT_SECONDS of this service.",
                    code="decode_timeout",
                    limit=self._timeout_seconds,
                ) from None
            finally:
                self.busy -= 1
            if answer is not None:
                return checked(answer), time.monotonic() - job.began
            job.began = None

    async def _ask(self, crew: Crew, worker: Worker, header: Header, file: int) -> Header | None:
        """Return the worker's answer; None if it died before it took the video."""
        how: Ending = "overdue"
        try:
            message = {**header, "processor_seconds": 4 * self._timeout_seconds}
            if "slot" in header:  # the child has it at the beginning of its window
                message["slot"] = {**header["slot"], "offset": 0}
            answer = await worker.call(message, file=file)
            if "slot" in header and "times" in answer:
                slot = Slot(header["slot"]["offset"], tuple(header["slot"]["shape"]))
                await worker.window.move(slot, to=self._slots)
            how = "answered"
            return answer
        except ChildDiedError as error:
            how = "died"
            status = await worker.child.wait()
            _log.warning("decode worker %d ended with status %d", worker.child.pid, status)
            if crew.stopped:
                raise not_running() from None
            if not error.taken:
                return None
            raise decode_failed() from None
        except asyncio.CancelledError:
            how = "left" if time.monotonic() < worker.ends_at else "overdue"
            raise
        finally:
            await crew.end(worker, how)
