"""How much one caller may ask for: a rate kept in Redis or here, and requests at the same time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 60.0

_REDIS_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 5.0
_KEY: Final = "vtag:quota:"

# The same as `take` below, in one step and on the clock of Redis, for all replicas.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local window, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local busy = tonumber(redis.call('GET', KEYS[1]) or now)
busy = math.min(math.max(busy, now), now + window)
local after = busy + interval
if after - now > window + interval / 100 then
  return {0, string.format('%.6f', busy - now)}
end
redis.call('SET', KEYS[1], string.format('%.6f', after), 'PX', math.ceil((after - now) * 1000))
return {1, string.format('%.6f', after - now)}
"""


@dataclass(frozen=True)
class Standing:
    """Where a caller stands after a request.

    Attributes:
        limit: requests in a window.
        allowed: whether this one is within the limit.
        remaining: how many more could be sent at once.
        reset_seconds: until the whole limit could be sent at once.
        retry_seconds: until one more can be sent.
    """

    limit: int
    allowed: bool
    remaining: int
    reset_seconds: float
    retry_seconds: float

    def headers(self) -> dict[str, str]:
        """``RateLimit`` fields (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "RateLimit-Policy": f'"default";q={self.limit};w={WINDOW_SECONDS:.0f}',
            "RateLimit": f'"default";r={self.remaining};t={math.ceil(self.reset_seconds)}',
        }


def take(busy_until: float, *, now: float, limit: int) -> tuple[bool, float]:
    """Take one request from a bucket that refills evenly; return (allowed, new `busy_until`).

    The generic cell rate algorithm (ITU-T I.371): every request makes the line busy for
    window / limit seconds, and may be a window early at most.
    """
    busy = min(max(busy_until, now), now + WINDOW_SECONDS)
    interval = WINDOW_SECONDS / limit
    after = busy + interval
    is_within = after - now <= WINDOW_SECONDS + interval / 100  # sums of intervals are not exact
    return (True, after) if is_within else (False, busy)


def _standing(limit: int, *, allowed: bool, busy_seconds: float) -> Standing:
    interval = WINDOW_SECONDS / limit
    free = (WINDOW_SECONDS - busy_seconds) / interval
    return Standing(
        limit,
        allowed,
        remaining=max(0, math.floor(free + 0.01)),
        reset_seconds=max(0.0, busy_seconds),
        retry_seconds=max(0.0, busy_seconds + interval - WINDOW_SECONDS),
    )


class Quotas:
    """Counts requests of callers.

    Rates are shared by all replicas through Redis; without it, or while it fails, each replica
    counts for itself. Requests at the same time are counted by each replica.

    Args:
        redis_url: `redis://…`; None: this process alone.
        clock: seconds that never go back.
    """

    def __init__(
        self, *, redis_url: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._busy_until: dict[str, float] = {}
        self._at_once: Counter[str] = Counter()
        self._asleep_until = -math.inf
        self._redis: Any = None
        if redis_url is not None:
            self._redis = Redis.from_url(
                redis_url,
                socket_timeout=_REDIS_SECONDS,
                socket_connect_timeout=_REDIS_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            self._script = self._redis.register_script(_SCRIPT)

    async def count(self, name: str, *, limit: int) -> Standing:
        """Count one request of the caller `name`, who has `limit` of them a minute."""
        if self._redis is not None and self._clock() >= self._asleep_until:
            try:
                async with asyncio.timeout(_REDIS_SECONDS):
                    allowed, busy = await self._script(
                        keys=[_KEY + name], args=[WINDOW_SECONDS, WINDOW_SECONDS / limit]
                    )
                return _standing(limit, allowed=bool(allowed), busy_seconds=float(busy))
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("quotas: Redis failed (%s); counting here", type(error).__name__)
                self._asleep_until = self._clock() + _PAUSE_SECONDS
        now = self._clock()
        allowed, busy = take(self._busy_until.get(name, now), now=now, limit=limit)
        self._busy_until[name] = busy
        return _standing(limit, allowed=allowed, busy_seconds=busy - now)

    @contextmanager
    def place(self, name: str, *, limit: int | None) -> Iterator[bool]:
        """Hold one of the places of the caller `name`; yield whether there was one."""
        if limit is not None and self._at_once[name] >= limit:
            yield False
            return
        self._at_once[name] += 1
        try:
            yield True
        finally:
            self._at_once[name] -= 1
            if not self._at_once[name]:
                del self._at_once[name]

    async def close(self) -> None:
        """Leave Redis."""
        if self._redis is not None:
            await self._redis.aclose()
