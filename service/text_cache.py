"""Finished text vectors: this process's LRU, then Redis; computed once however many ask at once.

Redis is a convenience. When it is slow, gone, full or holds nonsense, requests lose its help and
nothing else: short timeouts, then a pause in which it is not asked at all.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.cached_text import CachedText, pack, redis_key, unpack
from service.flight import Flight, Waiter
from service.tracing import span

_log = logging.getLogger(__name__)

_KEYS_PER_CALL: Final = 256
_REDIS: Final = {"db.system.name": "redis"}

Compute = Callable[[Sequence[str], float | None], Awaitable[Sequence[CachedText]]]
"""Makes the values of some keys; they are worthless at a deadline (None: never)."""


class TextCache:
    """Two levels of cache and one flight per key.

    Args:
        capacity: most vectors kept in this process.
        redis_url: `redis://…`; None: this process alone.
        redis_timeout_seconds: longest wait for one Redis call.
        cooldown_seconds: pause after a failure.
        expiry_seconds: life of a value in Redis.
    """

    def __init__(
        self,
        *,
        capacity: int = 50_000,
        redis_url: str | None = None,
        redis_timeout_seconds: float = 0.25,
        cooldown_seconds: float = 5.0,
        expiry_seconds: int = 30 * 24 * 3600,
    ) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, CachedText] = OrderedDict()
        self._flights: dict[str, Flight[CachedText]] = {}  # for each key that is on its way
        self._tasks: set[asyncio.Task[None]] = set()
        self._timeout_seconds = redis_timeout_seconds
        self._cooldown_seconds = cooldown_seconds
        self._expiry_seconds = expiry_seconds
        self._asleep_until = 0.0
        self._redis: Redis | None = None
        if redis_url is not None:
            self._redis = Redis.from_url(
                redis_url,
                socket_timeout=redis_timeout_seconds,
                socket_connect_timeout=redis_timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
            )
        self.local_hits = 0  # vectors found in this process
        self.redis_hits = 0  # vectors found in Redis
        self.computed = 0  # vectors that had to be made
        self.redis_failures = 0
        """Redis calls that failed."""
        self.corrupt = 0
        """Values in Redis that were not what they should be."""
        self.degraded = False
        """Whether the last Redis call failed."""
        self.observe: Callable[[str, float], None] | None = None
        """Told of each Redis call, `read`, `write` or `ping`, and the seconds that it took."""

    @property
    def entries(self) -> int:
        """Number of vectors kept in this process."""
        return len(self._kept)

    @property
    def pending(self) -> int:
        """Number of flights and writes that run in the background."""
        return len(self._tasks)

    async def get(
        self,
        keys: Sequence[str],
        *,
        dimension: int,
        compute: Compute,
        keys_per_compute: int,
        deadline: float | None = None,
    ) -> tuple[list[CachedText], int]:
        """Return the values of `keys` in their order, and how many needed no computing by us.

        Whoever asks for a key that is being computed gets that value, also when those who asked
        before have left. What nobody waits for any more is not computed.

        Args:
            keys: each names everything its value depends on.
            dimension: size of the vectors; a value of another size is a miss.
            compute: makes values for some of the keys; what it raises is raised here.
            keys_per_compute: most keys given to one call of it.
            deadline: `time.monotonic()` until which this request will wait; None: for ever. It
                orders the work; whoever calls sees to it that the wait ends then.
        """
        found: dict[str, CachedText] = {}
        waiting: dict[str, asyncio.Future[CachedText]] = {}
        mine: Flight[CachedText] = Flight()
        flights = {mine}
        for key in keys:
            if key in found or key in waiting:
                continue
            value = self._kept.get(key)
            if value is not None and value.vector.shape == (dimension,):
                self._kept.move_to_end(key)
                self.local_hits += 1
                found[key] = value
            elif (flight := self._flights.get(key)) is not None:
                waiting[key] = flight.futures[key]
                flights.add(flight)
            else:
                waiting[key] = mine.futures[key] = asyncio.get_running_loop().create_future()
                self._flights[key] = mine
        computed: set[str] = set()
        waiter = Waiter(waiting.keys(), deadline)
        for flight in flights:
            flight.waiters.add(waiter)
        if mine.futures:
            # In a task of its own: others may wait for it, so it outlives a request that leaves.
            mine.task = self._spawn(self._fly(mine, dimension, compute, keys_per_compute, computed))
        try:
            for key, future in waiting.items():
                found[key] = await asyncio.shield(future)
        finally:
            for flight in flights:
                self._leave(flight, waiter)
        return [found[key] for key in keys], len(found) - len(computed)

    async def ping(self) -> None:
        """Ask Redis whether it is there, unless it failed a moment ago; `degraded` says so then."""
        if (redis := self._awake()) is None:
            return
        try:
            # Nobody waits for it: an answer that a busy machine delays is no loss yet.
            async with self._calling("ping", self._timeout_seconds * 2):
                await redis.ping()
            self.degraded = False
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    async def close(self) -> None:
        """End what runs in the background and leave Redis."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            await self._redis.aclose()

    async def _fly(
        self,
        flight: Flight[CachedText],
        dimension: int,
        compute: Compute,
        step: int,
        computed: set[str],
    ) -> None:
        try:
            keys = list(flight.futures)
            missing: list[str] = []
            for key, value in zip(keys, await self._read(keys, dimension), strict=True):
                if value is None:
                    missing.append(key)
                else:
                    self.redis_hits += 1
                    self._land(flight, key, value)
            # Asked anew for each piece: some may have left, others may have come.
            while part := flight.wanted(missing, most=step):
                deadline = flight.deadline(part)
                late = deadline is not None and deadline <= asyncio.get_running_loop().time()
                limit = asyncio.timeout_at(None if late else deadline)
                try:
                    async with limit:
                        values = await compute(part, deadline)
                except TimeoutError:
                    if limit.expired():
                        continue  # for those who came meanwhile, by their deadline
                    raise
                self.computed += len(part)
                computed.update(part)
                for key, value in zip(part, values, strict=True):
                    self._land(flight, key, value)
                self._spawn(self._write(dict(zip(part, values, strict=True))))
                missing = [key for key in missing if key in flight.futures]
        except BaseException as error:
            self._forget(flight)
            flight.fail(
                error if isinstance(error, Exception) else RuntimeError("text cache closed")
            )
            if not isinstance(error, Exception):
                raise
        self._forget(flight)  # what nobody wanted in the end

    def _leave(self, flight: Flight[CachedText], waiter: Waiter) -> None:
        flight.waiters.discard(waiter)
        if flight.task is not None and not flight.waiters:
            self._forget(flight)  # at once: who comes now must not wait for what is being ended
            flight.task.cancel()

    def _forget(self, flight: Flight[CachedText]) -> None:
        for key in flight.futures:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _land(self, flight: Flight[CachedText], key: str, value: CachedText) -> None:
        flight.land(key, value)
        if self._flights.get(key) is flight:
            del self._flights[key]
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    async def _read(self, keys: list[str], dimension: int) -> list[CachedText | None]:
        values: list[CachedText | None] = []
        for first in range(0, len(keys), _KEYS_PER_CALL):
            part = keys[first : first + _KEYS_PER_CALL]
            if (redis := self._awake()) is None:
                break
            try:
                with span("redis MGET", _REDIS, client=True):
                    async with self._calling("read", self._timeout_seconds):
                        raw = await redis.mget([redis_key(key) for key in part])
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                break
            self.degraded = False
            values += [self._parse(k, v, dimension) for k, v in zip(part, raw, strict=True)]
        return values + [None] * (len(keys) - len(values))

    async def _write(self, values: dict[str, CachedText]) -> None:
        if (redis := self._awake()) is None:
            return
        try:
            with span("redis SET", _REDIS, client=True):
                async with (
                    self._calling("write", self._timeout_seconds * 4),
                    redis.pipeline(transaction=False) as pipe,
                ):
                    for key, value in values.items():
                        pipe.set(redis_key(key), pack(key, value), ex=self._expiry_seconds)
                    await pipe.execute()
            self.degraded = False
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    def _parse(self, key: str, raw: object, dimension: int) -> CachedText | None:
        if raw is None:
            return None
        value = unpack(key, raw, dimension=dimension) if isinstance(raw, bytes) else None
        if value is None:
            self.corrupt += 1
            _log.warning("a text vector in Redis is damaged or of another kind; computing it")
        return value

    @asynccontextmanager
    async def _calling(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Limit one call of Redis, and tell how long it took."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                yield
        finally:
            if self.observe is not None:
                self.observe(name, time.monotonic() - began)

    def _awake(self) -> Redis | None:
        now = asyncio.get_running_loop().time()
        return self._redis if now >= self._asleep_until else None

    def _failed(self, error: Exception) -> None:
        self.redis_failures += 1
        if not self.degraded:
            _log.warning("Redis failed (%s); serving without it", type(error).__name__)
        self.degraded = True
        self._asleep_until = asyncio.get_running_loop().time() + self._cooldown_seconds

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
