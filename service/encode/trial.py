"""A network at another λ beside the one that serves: measured with, then dropped."""

import contextlib
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Header
from service.child import ChildDiedError
from service.encode.supervision import EncoderError, EncoderWorker
from service.encode.turns import Turns

_PIXELS_PER_CALL: Final = 2 * 224 * 224
_TEXTS_PER_CALL: Final = 64
"""Of a call in the background, but one clip at least: what a request may have to wait for."""

_DROP_SECONDS: Final = 10.0


class TrialGoneError(EncoderError):
    """The network is not there any more: the worker died, or another λ was put to serve."""


class Trial:
    """One temporary network in the encoder process; made by `EncoderProcess.trial`.

    Its calls are short and stand back for requests, see `Turns`.
    """

    def __init__(
        self,
        worker: EncoderWorker,
        *,
        clip_weight: float,
        turns: Turns,
        call_timeout_seconds: float,
        build_timeout_seconds: float,
    ) -> None:
        self.clip_weight = clip_weight
        self._worker = worker
        self._turns = turns
        self._call_timeout_seconds = call_timeout_seconds
        self._build_timeout_seconds = build_timeout_seconds

    async def build(self) -> None:
        """Build it; requests are answered meanwhile."""
        await self._ask({"op": "trial"}, timeout=self._build_timeout_seconds)

    async def drop(self) -> None:
        """Give its memory back."""
        with contextlib.suppress(EncoderError):  # a worker that is gone took it along
            await self._ask({"op": "trial_end"}, timeout=_DROP_SECONDS)

    async def encode_clips(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the frame embeddings float32 (clips, T, D), not normalised, of decoded clips.

        Args:
            pixels: uint8 (clips, T, S, S, 3), clips >= 1, as decoded.

        Raises:
            TrialGoneError: it must be built again.
            EncoderError: the worker failed.
        """
        step = max(1, _PIXELS_PER_CALL // int(np.prod(pixels.shape[1:4])))
        return await self._encode("trial_clips", pixels, step=step)

    async def encode_texts(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the embeddings float32 (n, D) of tokenised texts int64 (n, L); see above."""
        return await self._encode("trial_texts", ids, step=_TEXTS_PER_CALL)

    async def _encode(
        self, operation: str, values: npt.NDArray[np.generic], *, step: int
    ) -> npt.NDArray[np.float32]:
        parts = []
        for first in range(0, len(values), step):
            part = np.ascontiguousarray(values[first : first + step])
            header: Header = {"op": operation, "shape": list(part.shape)}
            async with self._turns.background():
                answer, output = await self._ask(
                    header, payload=part.tobytes(), timeout=self._call_timeout_seconds
                )
            if answer.get("gone"):
                raise TrialGoneError(f"the network at {self.clip_weight:g} is gone")
            if answer["bad"]:
                raise EncoderError("an embedding is zero or not finite")
            parts.append(np.frombuffer(output, np.float32).reshape(answer["shape"]))
        return np.concatenate(parts)

    async def _ask(
        self, header: Header, *, payload: bytes = b"", timeout: float
    ) -> tuple[Header, bytes]:
        child = await self._worker.child()
        message = {**header, "clip_weight": self.clip_weight}
        try:
            return await self._worker.ask(child, message, payload=payload, timeout=timeout)
        except ChildDiedError:
            raise TrialGoneError("the encoder died") from None
