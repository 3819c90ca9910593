"""Has the worker build and drop networks, one build at a time."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from service.channel import Header
from service.child import ChildDiedError
from service.encode.residents import NoRoomError
from service.encode.supervision import EncoderError, EncoderUnavailableError, EncoderWorker

_ATTEMPTS: Final = 2
_DROP_SECONDS: Final = 60.0


class NetworkBuilder:
    """The networks of one worker.

    Args:
        worker: has them.
        logit_scale: gives the logit scale at a λ whose weights are there, else None.
        timeout_seconds: a worker that does not build for so long is killed.
    """

    def __init__(
        self,
        worker: EncoderWorker,
        *,
        logit_scale: Callable[[float], float | None],
        timeout_seconds: float,
    ) -> None:
        self._worker = worker
        self._logit_scale = logit_scale
        self._timeout_seconds = timeout_seconds
        self.turn = asyncio.Lock()
        """Held while something is built: two at once would be a network too many."""

    async def build(self, clip_weight: float) -> float:
        """Build and check the network at a λ; return its logit scale.

        Raises:
            NoRoomError: the memory is too small.
            ArtefactError: the network does not compute.
            EncoderError: the worker failed.
        """
        header: Header = {"op": "build", "clip_weight": clip_weight}
        async with self.turn:
            for _ in range(_ATTEMPTS):
                child = await self._worker.child()
                scale = self._logit_scale(clip_weight)
                if scale is not None:  # a new worker has started with it
                    return scale
                try:
                    answer, _ = await self._worker.ask(child, header, timeout=self._timeout_seconds)
                except ChildDiedError:
                    continue
                if "no_room" in answer:
                    raise NoRoomError(f"clip_weight {clip_weight:g}: {answer['no_room']}")
                return float(answer["logit_scale"])
        raise EncoderError(f"the encoder died building clip_weight {clip_weight:g}")

    async def drop(self, clip_weight: float) -> None:
        """Give the memory of the network at a λ back."""
        with contextlib.suppress(ChildDiedError, EncoderUnavailableError):  # gone with its worker
            child = await self._worker.child()
            header: Header = {"op": "drop", "clip_weight": clip_weight}
            await self._worker.ask(child, header, timeout=_DROP_SECONDS)
