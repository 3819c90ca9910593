"""Has the workers build and drop networks, one λ at a time, in all of them at once."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from service.channel import Header
from service.child import Child, ChildDiedError
from service.encode.residents import NoRoomError
from service.encode.supervision import EncoderError, EncoderWorker, first_ready

_DEATHS: Final = 2
"""After so many deaths under one build what is built may be what kills."""

_DROP_SECONDS: Final = 60.0


class NetworkBuilder:
    """The networks of all workers.

    Args:
        workers: have them.
        timeout_seconds: a worker that does not build for so long is killed.
    """

    def __init__(self, workers: Sequence[EncoderWorker], *, timeout_seconds: float) -> None:
        self._workers = workers
        self._timeout_seconds = timeout_seconds
        self.turn = asyncio.Lock()
        """Held while something is built: two at once would be a network too many."""

    async def build(self, clip_weight: float) -> float:
        """Build and check the network at a λ where it is missing; return its logit scale.

        When this returns, each worker that is ready has it. One that is not starts with the served
        λ, and is given this one when work at it waits.

        Raises:
            NoRoomError: the memory is too small.
            ArtefactError: the network does not compute.
            EncoderError: the workers failed.
        """
        if not self._lacking(clip_weight) and (scale := self._scale(clip_weight)) is not None:
            return scale
        async with self.turn:
            deaths = 0
            while deaths < _DEATHS:
                # Until none lacks it: one that comes back meanwhile must have it, too.
                if lacking := self._lacking(clip_weight):
                    deaths += await self._build_in(lacking, clip_weight)
                elif (scale := self._scale(clip_weight)) is not None:
                    return scale
                else:
                    await first_ready(self._workers)
        scale = self._scale(clip_weight)
        if scale is None:
            raise EncoderError(f"the encoder died building clip_weight {clip_weight:g}")
        return scale

    async def drop(self, clip_weight: float) -> None:
        """Give the memory of the network at a λ back."""
        for worker in self._workers:
            worker.scales.pop(clip_weight, None)
        header: Header = {"op": "drop", "clip_weight": clip_weight}
        children = [(each, each.present) for each in self._workers]
        await asyncio.gather(
            *(
                self._tell(worker, child, header)
                for worker, child in children
                if child is not None  # else it is gone with its worker
            )
        )

    def _lacking(self, clip_weight: float) -> list[EncoderWorker]:
        return [each for each in self._workers if each.ready and clip_weight not in each.scales]

    def _scale(self, clip_weight: float) -> float | None:
        """As a worker has it; one that died had it and can have it again."""
        found = (each.scales.get(clip_weight) for each in self._workers)
        return next((scale for scale in found if scale is not None), None)

    async def _build_in(self, workers: Sequence[EncoderWorker], clip_weight: float) -> int:
        """Build in these side by side; return how many died. One that cannot fails the build."""
        known = self._scale(clip_weight) is not None
        header: Header = {"op": "build", "clip_weight": clip_weight, "at_once": len(workers)}
        results = await asyncio.gather(
            *(self._ask(worker, header) for worker in workers), return_exceptions=True
        )
        problems = [each for each in results if isinstance(each, BaseException)]
        deaths = sum(isinstance(each, ChildDiedError) for each in problems)
        if len(problems) > deaths:
            if not known:  # of a λ that is not served nothing may stay behind
                await self.drop(clip_weight)
            raise next(each for each in problems if not isinstance(each, ChildDiedError))
        return deaths

    async def _ask(self, worker: EncoderWorker, header: Header) -> None:
        child, scales = worker.present, worker.scales
        if child is None:
            raise ChildDiedError("encoder", status=None, taken=False)
        answer, _ = await worker.ask(child, header, timeout=self._timeout_seconds)
        if "no_room" in answer:
            raise NoRoomError(f"clip_weight {header['clip_weight']:g}: {answer['no_room']}")
        scales[header["clip_weight"]] = float(answer["logit_scale"])

    async def _tell(self, worker: EncoderWorker, child: Child, header: Header) -> None:
        with contextlib.suppress(ChildDiedError):
            await worker.ask(child, header, timeout=_DROP_SECONDS)
