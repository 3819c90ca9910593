"""A network at another λ beside those that serve: measured with, then dropped."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.child import Child, ChildDiedError
from service.encode.residents import NoRoomError
from service.encode.station import Station
from service.encode.supervision import EncoderError, first_ready

_PIXELS_PER_CALL: Final = 2 * 224 * 224
_TEXTS_PER_CALL: Final = 64
"""Of a call in the background, but one clip at least: what a request may have to wait for."""

_DROP_SECONDS: Final = 10.0


class TrialGoneError(EncoderError):
    """The network is nowhere any more: workers died, or another λ was put to serve."""


class Trial:
    """One temporary network in each encoder process; made by `EncoderProcess.trial`.

    Its calls are short and stand back for requests, see `Turns`; each goes to the device that lets
    the background pass first. A worker that dies leaves its call to the others.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        *,
        clip_weight: float,
        call_timeout_seconds: float,
        build_timeout_seconds: float,
    ) -> None:
        self.clip_weight = clip_weight
        self._stations = stations
        self._call_timeout_seconds = call_timeout_seconds
        self._build_timeout_seconds = build_timeout_seconds
        self._places: dict[Station, Child] = {}

    async def build(self) -> None:
        """Build it in each worker that is ready; requests are answered meanwhile.

        Raises:
            TrialGoneError: the workers died.
            NoRoomError: there is no memory for one; where it is enough for some, those have it.
            ArtefactError, EncoderError: it does not compute, or not here.
        """
        await first_ready([station.worker for station in self._stations])
        refusal: EncoderError = TrialGoneError("the encoder died")
        # One after another: nobody waits, and each sees what memory the others have left.
        for station in self._stations:
            child = station.worker.present
            if child is None:
                continue
            self._places[station] = child
            try:
                answer, _ = await self._ask(
                    station, child, {"op": "trial"}, timeout=self._build_timeout_seconds
                )
            except ChildDiedError:
                del self._places[station]
                continue
            if "no_room" in answer:
                refusal = NoRoomError(f"clip_weight {self.clip_weight:g}: {answer['no_room']}")
                del self._places[station]
        if not self._places:
            raise refusal

    async def drop(self) -> None:
        """Give its memory back."""
        places, self._places = self._places, {}
        for station, child in places.items():
            # A worker that is gone took it along; one that fails at it is found out by others.
            with contextlib.suppress(ChildDiedError, EncoderError):
                await self._ask(station, child, {"op": "trial_end"}, timeout=_DROP_SECONDS)

    async def encode_clips(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the frame embeddings float32 (clips, T, D), not normalised, of decoded clips.

        Args:
            pixels: uint8 (clips, T, S, S, 3), clips >= 1, as decoded.

        Raises:
            TrialGoneError: it must be built again.
            EncoderError: a worker failed.
        """
        step = max(1, _PIXELS_PER_CALL // int(np.prod(pixels.shape[1:4])))
        return await self._encode("trial_clips", pixels, step=step)

    async def encode_texts(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the embeddings float32 (n, D) of tokenised texts int64 (n, L); see above."""
        return await self._encode("trial_texts", ids, step=_TEXTS_PER_CALL)

    async def _encode(
        self, operation: str, values: npt.NDArray[np.generic], *, step: int
    ) -> npt.NDArray[np.float32]:
        waiting = deque(range(0, len(values), step))
        found: dict[int, npt.NDArray[np.float32]] = {}

        async def pull(station: Station, child: Child) -> None:
            while waiting:
                async with station.turns.background():
                    if not waiting:
                        return
                    first = waiting.popleft()
                    part = np.ascontiguousarray(values[first : first + step])
                    vectors = await self._run(operation, part, station, child)
                if vectors is None:
                    waiting.appendleft(first)
                    self._places.pop(station, None)
                    return
                found[first] = vectors

        while len(found) < -(-len(values) // step):
            if not self._places:
                raise TrialGoneError(f"the network at {self.clip_weight:g} is gone")
            tasks = [asyncio.create_task(pull(*place)) for place in self._places.items()]
            try:
                await asyncio.gather(*tasks)
            finally:  # one failed, or nobody waits any more
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return np.concatenate([found[first] for first in sorted(found)])

    async def _run(
        self, operation: str, part: npt.NDArray[np.generic], station: Station, child: Child
    ) -> npt.NDArray[np.float32] | None:
        """Return the vectors of one call; None: that worker has the network no more."""
        header: Header = {"op": operation, "shape": list(part.shape)}
        try:
            answer, output = await self._ask(
                station,
                child,
                header,
                payload=part.tobytes(),
                timeout=self._call_timeout_seconds,
            )
        except ChildDiedError:
            return None
        if answer.get("gone"):
            return None
        if answer["bad"]:
            raise EncoderError("an embedding is zero or not finite")
        return np.frombuffer(output, np.float32).reshape(answer["shape"])

    async def _ask(
        self,
        station: Station,
        child: Child,
        header: Header,
        *,
        payload: bytes = b"",
        timeout: float,
    ) -> tuple[Header, bytes]:
        message = {**header, "clip_weight": self.clip_weight}
        return await station.worker.ask(child, message, payload=payload, timeout=timeout)
