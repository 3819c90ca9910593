"""Finished text vectors: this process's LRU, then Redis; computed once however many ask at once.

Redis is a convenience. When it is slow, gone, full or holds nonsense, requests lose its help and
nothing else: short timeouts, then a pause in which it is not asked at all.
"""

import asyncio
import hashlib
import logging
import struct
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)

_VALUE: Final = struct.Struct(">4sBII")
"""Magic, flags (1: truncated), dimension, CRC-32 of key and vector; the vector follows."""

_MAGIC: Final = b"vtx1"
_KEYS_PER_CALL: Final = 256
_NORM_TOLERANCE: Final = 1e-3
_PREFIX: Final = b"vtag:text:"


@dataclass(frozen=True)
class CachedText:
    """The classifier vector of one label.

    Attributes:
        vector: float32 (D,), unit length.
        truncated: whether the tokenizer had to cut a text that it was made of.
    """

    vector: npt.NDArray[np.float32]
    truncated: bool


Compute = Callable[[Sequence[str]], Awaitable[Sequence[CachedText]]]


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
        self._flights: dict[str, asyncio.Future[CachedText]] = {}
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
        self.local_hits = 0
        """Vectors found in this process."""
        self.redis_hits = 0
        """Vectors found in Redis."""
        self.computed = 0
        """Vectors that had to be made."""
        self.redis_failures = 0
        """Redis calls that failed."""
        self.corrupt = 0
        """Values in Redis that were not what they should be."""
        self.degraded = False
        """Whether the last Redis call failed."""

    @property
    def pending(self) -> int:
        """Number of flights and writes that run in the background."""
        return len(self._tasks)

    async def get(
        self, keys: Sequence[str], *, dimension: int, compute: Compute, keys_per_compute: int
    ) -> tuple[list[CachedText], int]:
        """Return the values of `keys` in their order, and how many needed no computing by us.

        Args:
            keys: each names everything its value depends on.
            dimension: size of the vectors; a value of another size is a miss.
            compute: makes values for some of the keys; what it raises is raised here.
            keys_per_compute: most keys given to one call of it.
        """
        found: dict[str, CachedText] = {}
        waiting: dict[str, asyncio.Future[CachedText]] = {}
        mine: list[str] = []
        for key in keys:
            if key in found or key in waiting:
                continue
            value = self._kept.get(key)
            if value is not None and value.vector.shape == (dimension,):
                self._kept.move_to_end(key)
                self.local_hits += 1
                found[key] = value
            elif (flight := self._flights.get(key)) is not None:
                waiting[key] = flight
            else:
                flight = asyncio.get_running_loop().create_future()
                self._flights[key] = waiting[key] = flight
                mine.append(key)
        computed: set[str] = set()
        if mine:
            # In a task of its own: others may wait for it, so it outlives a request that leaves.
            self._spawn(self._fly(mine, dimension, compute, keys_per_compute, computed))
        for key, flight in waiting.items():
            found[key] = await asyncio.shield(flight)
        misses = sum(key in computed for key in mine)
        return [found[key] for key in keys], len(found) - misses

    async def close(self) -> None:
        """End what runs in the background and leave Redis."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            await self._redis.aclose()

    async def _fly(
        self, keys: list[str], dimension: int, compute: Compute, step: int, computed: set[str]
    ) -> None:
        try:
            missing: list[str] = []
            for key, value in zip(keys, await self._read(keys, dimension), strict=True):
                if value is None:
                    missing.append(key)
                else:
                    self.redis_hits += 1
                    self._land(key, value)
            for first in range(0, len(missing), step):
                part = missing[first : first + step]
                values = await compute(part)
                self.computed += len(part)
                computed.update(part)
                for key, value in zip(part, values, strict=True):
                    self._land(key, value)
                self._spawn(self._write(dict(zip(part, values, strict=True))))
        except BaseException as error:
            cause = error if isinstance(error, Exception) else RuntimeError("text cache closed")
            for key in keys:
                flight = self._flights.pop(key, None)
                if flight is not None and not flight.done():
                    flight.set_exception(cause)
                    flight.exception()  # whoever asked may have left: nothing to complain about
            if not isinstance(error, Exception):
                raise

    def _land(self, key: str, value: CachedText) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None and not flight.done():
            flight.set_result(value)
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
                async with asyncio.timeout(self._timeout_seconds):
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
            async with asyncio.timeout(self._timeout_seconds * 4):
                async with redis.pipeline(transaction=False) as pipe:
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

    def _awake(self) -> Redis | None:
        now = asyncio.get_running_loop().time()
        return self._redis if now >= self._asleep_until else None

    def _failed(self, error: Exception) -> None:
        self.redis_failures += 1
        if not self.degraded:
            _log.warning("Redis failed (%s); serving without it", type(error).__name__)
        self.degraded = True
        self._asleep_until = asyncio.get_running_loop().time() + self._cooldown_seconds

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def redis_key(key: str) -> bytes:
    """Return the name of `key` in Redis: short, and free of what people typed."""
    return _PREFIX + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).digest()


def pack(key: str, value: CachedText) -> bytes:
    """Return the bytes that stand for `value` under `key` in Redis."""
    data = np.ascontiguousarray(value.vector, ">f4").tobytes()
    flags = int(value.truncated)
    check = zlib.crc32(data, zlib.crc32(redis_key(key) + bytes([flags])))
    return _VALUE.pack(_MAGIC, flags, len(value.vector), check) + data


def unpack(key: str, raw: bytes, *, dimension: int) -> CachedText | None:
    """Return the value of `pack`, or None if `raw` is not one for this key and dimension."""
    if len(raw) != _VALUE.size + 4 * dimension:
        return None
    magic, flags, size, check = _VALUE.unpack_from(raw)
    data = raw[_VALUE.size :]
    if magic != _MAGIC or flags > 1 or size != dimension:
        return None
    if check != zlib.crc32(data, zlib.crc32(redis_key(key) + bytes([flags]))):
        return None
    vector = np.frombuffer(data, ">f4").astype(np.float32)
    if not abs(float(np.linalg.norm(vector)) - 1.0) <= _NORM_TOLERANCE:  # also NaN
        return None
    return CachedText(vector, truncated=bool(flags))
