"""The model store, looked at again and again: what is new is told, what is active is served.

By polling, not by notifications of the kernel: those do not cross a network file system or the
mount of a container, where stores of many machines are, and a look costs less than a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Final

from service.activation import Activation, ActivationFailedError, ActivationRunningError
from service.store import ActiveStamps, ArtefactStore, Signature
from service.videoclip.manifest import ArtefactError

logger = logging.getLogger("vtag")

_AGAIN_SECONDS: Final = 60.0
"""After a failure of the machine, such as too little memory, which may pass."""


class StoreWatch:
    """Acts on what changed, once it has been the same for two looks: nobody writes it any more.

    A change of `active.json`, or of the folder that it names, activates that artefact. One that
    was refused is tried again when the file or the folder changes, not before.

    Args:
        store: what is looked at.
        activation: serves what is active.
        known: how the store looked when what serves now was read from it.
        seconds: between two looks.
    """

    def __init__(
        self, store: ArtefactStore, *, activation: Activation, known: Signature, seconds: float
    ) -> None:
        self._store = store
        self._activation = activation
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._seen = known
        self._told = dict(known.artefacts)
        self._done: ActiveStamps | None = known.active
        self._again_at = math.inf

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="store-watch")

    async def stop(self) -> None:
        """End it; safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._look()
            except Exception:
                logger.exception("looking at the model store failed; trying again")

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._store.signature)
        before, self._seen = self._seen, found
        for key in (self._told.keys() | found.artefacts.keys()) - _moving(before, found):
            if self._told.get(key) != found.artefacts.get(key):
                await self._tell(key, found)
        if found.active != before.active:
            return
        if time.monotonic() >= self._again_at:
            self._done, self._again_at = None, math.inf
        if found.active != self._done and await self._serve():
            self._done = found.active

    async def _tell(self, key: tuple[str, str], found: Signature) -> None:
        name, revision = key
        stamps = found.artefacts.get(key)
        if stamps is None:
            del self._told[key]
            logger.info("model store: %s@%s is gone", name, revision)
            return
        self._told[key] = stamps
        try:
            seen = await asyncio.to_thread(self._store.look, name, revision)
        except ArtefactError:
            return  # gone since; the next look tells
        if seen.fault is not None:
            logger.warning("model store: an artefact is broken: %s", seen.fault)
        else:
            logger.info("model store: %s@%s is there", name, revision)

    async def _serve(self) -> bool:
        """Serve what is active; False: not possible now, to be tried at the next look."""
        try:
            manifest = await asyncio.to_thread(self._store.active)
        except ArtefactError as error:
            logger.error("model store: %s; what is loaded serves on", error)
            return True
        try:
            await self._activation.activate(manifest.name, manifest.revision, keep=False)
        except ActivationRunningError:
            return False
        except ArtefactError:
            pass  # told and counted where it happened
        except ActivationFailedError:
            self._again_at = time.monotonic() + _AGAIN_SECONDS
        return True


def _moving(before: Signature, found: Signature) -> set[tuple[str, str]]:
    """Return the artefacts that changed between two looks: somebody may be writing them."""
    keys = before.artefacts.keys() | found.artefacts.keys()
    return {key for key in keys if before.artefacts.get(key) != found.artefacts.get(key)}
