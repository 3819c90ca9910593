"""Whether an encoder that nobody asks anything would still answer: it is asked, every few seconds.

A process that hangs (stopped, dead-locked, waiting for a device that fell off its bus) looks well
as long as it is idle. While requests come, their batches are the proof; else a known text goes
through the real network, and what comes back must be what came back when the worker was checked.
"""

import asyncio
import logging
import time
from typing import Final

from service.channel import Header
from service.child import ChildDiedError
from service.encode.supervision import (
    EncoderError,
    EncoderMemoryError,
    EncoderUnavailableError,
    EncoderWorker,
)
from service.encode.turns import Turns
from service.videoclip.manifest import ArtefactError

_log = logging.getLogger(__name__)

_SILENCE_SECONDS: Final = 2.0
"""A worker that has answered nothing for so long is asked."""

_OVERDUE_SECONDS: Final = 5.0
"""An answer to the known text that takes longer is none; a network takes milliseconds for it."""


class Canary:
    """Asks one worker now and then, in turn with requests.

    Args:
        worker: is asked, and killed when it does not answer, or answers something else.
        turns: one call at a time.
        timeout_seconds: a worker that does not answer for so long is killed.
    """

    def __init__(self, worker: EncoderWorker, turns: Turns, *, timeout_seconds: float) -> None:
        self._worker = worker
        self._turns = turns
        self._timeout_seconds = timeout_seconds
        self._asked_at: float | None = None
        self._loop: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the question that was asked last, if any, was answered or may still be."""
        if self._asked_at is None:
            return True
        return time.monotonic() - self._asked_at < _OVERDUE_SECONDS

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name="encoder-canary")

    async def stop(self) -> None:
        """End; safe to call twice."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SILENCE_SECONDS)
            if self._worker.ready and self._silent:
                async with self._turns.request():
                    if self._silent:  # or a batch has answered while this waited
                        await self._ask()

    @property
    def _silent(self) -> bool:
        return time.monotonic() - self._worker.answered_at >= _SILENCE_SECONDS

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        message: Header = {"op": "canary"}
        try:
            child = await self._worker.child()
            await self._worker.ask(child, message, timeout=self._timeout_seconds)
        except (ChildDiedError, EncoderUnavailableError):
            return  # the supervisor starts another one
        except EncoderMemoryError as error:
            _log.warning("the device has no memory for one text: %s", error)  # that may pass
        except (EncoderError, ArtefactError) as error:
            _log.error("the encoder fails at what it could do before, and is replaced: %s", error)
            await child.kill()
        except Exception:  # noqa: BLE001 - the loop must live, or nobody asks any more
            _log.exception("the encoder could not be asked")
        finally:
            self._asked_at = None
