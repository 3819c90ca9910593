"""Which λ have their weights in the encoders, and which goes when another one comes."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from service.encode.supervision import EncoderError, EncoderUnavailableError


class NotResidentError(EncoderError):
    """The weights at this λ are not there, and may not be built.

    Attributes:
        clip_weight: the λ.
    """

    code = "lambda_not_resident"

    def __init__(self, clip_weight: float, reason: str) -> None:
        super().__init__(f"clip_weight {clip_weight:g}: {reason}")
        self.clip_weight = clip_weight


class StaleWeightsError(EncoderError):
    """The weights were lost while they were used, and could not be had again; it may be tried."""

    code = "encoder_unavailable"
    detail = "lambda is being changed; try again."


class NoRoomError(EncoderUnavailableError):
    """The memory is too small for the weights at another λ."""


class Residents:
    """Networks at several λ: the served one, and others that requests named.

    A λ that somebody holds, and the served one, is never dropped; of the others the one that was
    used longest ago goes first. Who needs a λ that is not there waits for its turn, and λ that are
    there wait behind it, so none can keep the others out for ever.

    What is there is there in each worker that has run since it was built; no worker has a network
    that is not listed here, so the limit holds in each of them.

    Args:
        limit: most networks, the served one included; while λ is switched there may be two.
        served: λ that is served.
        build: builds the network at a λ in the workers that lack it, checks it and returns its
            logit scale.
        drop: gives its memory back.
    """

    def __init__(
        self,
        *,
        limit: int,
        served: float,
        build: Callable[[float], Awaitable[float]],
        drop: Callable[[float], Awaitable[None]],
    ) -> None:
        self._limit = limit
        self._served = served
        self._build = build
        self._drop = drop
        self._scales: OrderedDict[float, float] = OrderedDict()  # last used last
        self._holders: Counter[float] = Counter()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._released = asyncio.Event()
        self._trimming: asyncio.Task[None] | None = None
        self._building: asyncio.Task[None] | None = None

    @property
    def served(self) -> float:
        """λ of requests that name none."""
        return self._served

    @property
    def present(self) -> tuple[float, ...]:
        """All λ whose weights are there, the one used longest ago first."""
        return tuple(self._scales)

    def logit_scale(self, clip_weight: float) -> float | None:
        """Return the logit scale at a λ, None while its weights are not there."""
        return self._scales.get(clip_weight)

    def restarted(
        self, clip_weight: float, *, logit_scale: float, elsewhere: Collection[float] = ()
    ) -> None:
        """A new worker has the weights at this λ and no others; other workers have `elsewhere`.

        What is held keeps its place: it is built again when work at it waits.
        """
        for lost in [each for each in self._scales if each not in elsewhere]:
            if lost != clip_weight and lost not in self._holders:
                del self._scales[lost]
        self._scales[clip_weight] = logit_scale
        self._released.set()  # who waits for a place may have one now

    def lost(self, clip_weight: float) -> None:
        """No worker has the weights at this λ, and they could not be had again."""
        if clip_weight != self._served:
            self._scales.pop(clip_weight, None)
            self._released.set()

    @asynccontextmanager
    async def hold(self, clip_weight: float, *, again: bool = False) -> AsyncIterator[None]:
        """Keep the weights at `clip_weight` there, built first if need be.

        Args:
            clip_weight: λ.
            again: the caller may hold it already, so it must not queue behind who waits for that.

        Raises:
            NotResidentError: they are not there and only the served λ may be.
            NoRoomError: they do not fit into the memory.
            ArtefactError: the network at this λ does not compute.
            EncoderError: the worker failed.
        """
        if self._is_free_to_use(clip_weight, again=again):
            self._holders[clip_weight] += 1
        else:
            if self._limit < 2 and clip_weight not in self._scales:
                raise NotResidentError(clip_weight, f"only {self._served:g} is being served")
            async with self._in_turn():
                if clip_weight != self._served:
                    await self._ensure(clip_weight, limit=self._limit)
                self._holders[clip_weight] += 1
        if clip_weight in self._scales:
            self._scales.move_to_end(clip_weight)
        try:
            yield
        finally:
            self._release(clip_weight)

    async def serve(self, clip_weight: float) -> None:
        """Build the weights at `clip_weight`, then serve them in place of the present ones.

        Raises: as `hold`; then the old λ serves on.
        """
        async with self._in_turn():
            if clip_weight in self._scales:
                # In workers that came back without it; who restarts meanwhile may take it along.
                self._scales[clip_weight] = await self._build(clip_weight)
            else:
                await self._ensure(clip_weight, limit=max(2, self._limit))
            self._served = clip_weight
            self._scales.move_to_end(clip_weight)
        self._trim()

    async def rebuild(self, clip_weight: float) -> None:
        """Build again what a worker that died took along, whoever holds it. Raises: as `hold`."""
        if clip_weight not in self._scales:
            async with self._in_turn():
                await self._ensure(clip_weight, limit=self._limit)
            return
        # It has its place. Who waits for one may wait for those who wait for this.
        self._holders[clip_weight] += 1
        try:
            await self._build(clip_weight)
        except NoRoomError:
            victim = self._victim()
            if victim is None:
                raise
            del self._scales[victim]
            await self._drop(victim)
            await self._build(clip_weight)
        finally:
            self._release(clip_weight)

    def _release(self, clip_weight: float) -> None:
        self._holders[clip_weight] -= 1
        if not self._holders[clip_weight]:
            del self._holders[clip_weight]
            self._released.set()
            self._trim()

    def _is_free_to_use(self, clip_weight: float, *, again: bool) -> bool:
        if clip_weight == self._served or (again and clip_weight in self._holders):
            return True
        return clip_weight in self._scales and not self._waiting

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            await self._turn.acquire()
            try:
                yield
            finally:
                if self._building is None or self._building.done():
                    self._turn.release()
                else:  # the next may not build before this is done
                    self._building.add_done_callback(self._finished)
                self._building = None
        finally:
            self._waiting -= 1

    async def _ensure(self, clip_weight: float, *, limit: int) -> None:
        if clip_weight in self._scales:
            return
        await self._make_room(limit - 1)
        try:
            await self._built(clip_weight)
        except NoRoomError:
            if len(self._scales) < 2:
                raise
            await self._make_room(len(self._scales) - 1)
            await self._built(clip_weight)

    async def _built(self, clip_weight: float) -> None:
        """Build and count a network. Once begun that is done, though who asked for it has left.

        The worker cannot stop on the way, and a network that nobody counts would never be dropped.
        """
        self._building = asyncio.create_task(self._build_and_count(clip_weight))
        await asyncio.shield(self._building)

    async def _build_and_count(self, clip_weight: float) -> None:
        self._scales[clip_weight] = await self._build(clip_weight)

    def _finished(self, building: asyncio.Task[None]) -> None:
        """What was being built when its asker left is there, or cannot be had."""
        if not building.cancelled():
            building.exception()  # nobody waits for it: who asks again is told
        self._turn.release()
        self._trim()

    async def _make_room(self, limit: int) -> None:
        """Drop networks, waiting for their holders, until no more than `limit` are there."""
        while len(self._scales) > max(1, limit):
            victim = self._victim()
            if victim is None:
                self._released.clear()
                await self._released.wait()
                continue
            del self._scales[victim]
            await self._drop(victim)

    def _victim(self) -> float | None:
        free = (w for w in self._scales if w != self._served and w not in self._holders)
        return next(free, None)

    def _trim(self) -> None:
        """Drop what only a switch made too many, once nobody holds it."""
        if len(self._scales) <= self._limit or self._victim() is None:
            return
        if self._trimming is None or self._trimming.done():
            self._trimming = asyncio.create_task(self._drop_surplus())

    async def _drop_surplus(self) -> None:
        async with self._turn:
            while len(self._scales) > self._limit and (victim := self._victim()) is not None:
                del self._scales[victim]
                await self._drop(victim)
