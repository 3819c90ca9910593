"""How much work is let in: bounded lanes, a predicted wait, and an honest time to come back."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.errors import ApiError
from service.metrics import Metrics
from service.tracing import span

_SMOOTHING = 0.1  # weight of the newest interval in the running mean
_STEP = 1.2  # by which the quantile of durations moves at most with a request
_KEPT = 0.995  # share of requests that take no longer than it
# The quantile counts for this share of a deadline at most. With more, short deadlines would let in
# so little that workers run dry between two arrivals; simulated in tests/service/test_admission.py.
_MOST_MARGIN = 0.6
_SPREAD = 0.2  # Retry-After is spread by this share, so that clients do not come back together
_MOST_RETRY_SECONDS = 60
_KEPT_SECONDS = 0.5  # for a body that is on its way; who is slower holds no place meanwhile
# A caller may hold this many places for each one that is free (dynamic thresholds, Choudhury and
# Hahne, IEEE/ACM ToN 6/2, 1998): three quarters of a lane alone, 3/7 beside another who wants more.
_SHARE = 3

caller_var: ContextVar[str | None] = ContextVar("caller", default=None)
"""Who made the request that is being worked on, where callers share lanes; None: nobody shares."""


@dataclass
class _Lane:
    """What is known about one kind of work.

    Attributes:
        limit: requests that may be in it, waiting or worked on.
        workers: how many of them are worked on at the same time.
        in_flight: requests in it.
        pace_seconds: mean time from one end to the next while all workers had work.
        work_seconds: what nearly all requests take beyond the wait that was predicted for them.
        ended: when the last one ended, if all workers had work from then on.
        kept: places for requests whose body is being received -> until when, and whose.
        held: by caller, requests in it.
    """

    limit: int
    workers: int
    in_flight: int = 0
    pace_seconds: float = 0.0
    work_seconds: float = 0.0
    ended: float | None = None
    kept: dict[object, tuple[float, str | None]] = field(default_factory=dict)
    held: Counter[str | None] = field(default_factory=Counter)

    def taken(self, now: float) -> int:
        """Return how many places are not free: requests in it, and those kept for some."""
        while self.kept:
            oldest, (until, _) = next(iter(self.kept.items()))
            if until > now:
                break
            del self.kept[oldest]
        return self.in_flight + len(self.kept)

    def held_by(self, caller: str) -> int:
        """Return how many places are his, with those that are kept for him."""
        return self.held[caller] + sum(whose == caller for _, whose in self.kept.values())

    def note(self, now: float, *, taken: float, waited: float) -> None:
        """Learn from a request that has just left."""
        sample = taken  # alone in the lane, the next one would have ended no later
        if self.ended is not None:
            sample = now - self.ended
        elif self.pace_seconds:
            sample = min(taken, self.pace_seconds)
        weight = _SMOOTHING if self.pace_seconds else 1.0
        self.pace_seconds += weight * (sample - self.pace_seconds)
        work = max(taken - waited, 1e-3)
        if self.work_seconds:
            # Settles where that share of the requests is below it, and no single one moves it far.
            self.work_seconds *= _STEP ** (_KEPT if work > self.work_seconds else _KEPT - 1)
        else:
            self.work_seconds = work
        self.ended = now if self.in_flight >= self.workers else None


class Admission:
    """Refuses at once what is beyond a lane's limit or would end after its deadline.

    Args:
        limits: lane name -> number of requests that may be in it, waiting or worked on.
        workers: lane name -> how many of them are worked on at the same time.
        metrics: where refusals and flights are counted.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        *,
        workers: Mapping[str, int],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = {name: _Lane(limit, workers[name]) for name, limit in limits.items()}
        self._metrics = metrics
        self._clock = clock
        self._backlog_seconds: Callable[[str], float] = lambda _: 0.0
        self._draining = False
        self._closed = False

    def watch(self, backlog_seconds: Callable[[str], float]) -> None:
        """Ask `backlog_seconds(lane)` how much accepted work is ahead of a new request."""
        self._backlog_seconds = backlog_seconds
        self._metrics.watch(
            "vtag_predicted_wait_seconds",
            lambda: {name: self.predicted_seconds(name) for name in self._lanes},
        )

    def drain(self) -> None:
        """Show that the service is stopping; requests are still taken."""
        self._draining = True

    def close(self) -> None:
        """Let nothing more in; what is in flight goes on."""
        self._draining = self._closed = True

    @property
    def draining(self) -> bool:
        """Whether the service is stopping."""
        return self._draining

    def in_flight(self, lane: str) -> int:
        """Requests of this lane that are in."""
        return self._lanes[lane].in_flight

    def predicted_seconds(self, lane: str) -> float:
        """Time until a request that came now would be worked on.

        The backlog that the workers report, or, if that is more, what the lane's own pace makes of
        the requests in it: it counts those too that wait for something else than a worker.
        """
        found = self._lanes[lane]
        taken = found.taken(self._clock())
        if taken == 0:
            return 0.0  # whatever was learned: somebody must be let in to learn anew
        paced = found.pace_seconds * taken
        return max(0.0, self._backlog_seconds(lane), paced)

    def check(self, lane: str, *, seconds: float | None = None) -> None:
        """Raise what `enter` would raise now."""
        found = self._lanes[lane]
        if self._closed:
            self._metrics.rejected.labels("draining").inc()
            raise ApiError("draining", "The service is stopping.", retry_after_seconds=5)
        taken = found.taken(self._clock())
        if taken >= found.limit:
            self._metrics.rejected.labels("queue_full").inc()
            raise ApiError(
                "saturated",
                f"{found.limit} requests are in flight already.",
                limit=found.limit,
                retry_after_seconds=_retry_after(found.pace_seconds * taken / 2),
            )
        self._require_share(found, taken)
        if seconds is None or taken == 0:
            return
        margin = min(found.work_seconds, _MOST_MARGIN * seconds)
        needed = self.predicted_seconds(lane) + margin
        if needed > seconds:
            self._metrics.rejected.labels("deadline").inc()
            raise ApiError(
                "saturated",
                "The answer would come after the deadline of the request.",
                limit=round(seconds, 3),
                actual=round(needed, 3),
                retry_after_seconds=_retry_after(needed - seconds),
            )

    def _require_share(self, found: _Lane, taken: int) -> None:
        """Leave places to others: one caller must not keep all of them waiting outside."""
        caller = caller_var.get()
        if caller is None:
            return
        held = found.held_by(caller)
        if held and held >= _SHARE * (found.limit - taken):
            self._metrics.rejected.labels("share").inc()
            raise ApiError(
                "too_many_at_once",
                f"This key has {held} of {found.limit} places; those that are free are for others.",
                limit=held,
                retry_after_seconds=_retry_after(found.pace_seconds),
            )

    @contextmanager
    def keep(self, lane: str, *, seconds: float | None = None) -> Iterator[None]:
        """Keep one place in a lane, for a moment, while the body of a request is received.

        Otherwise everybody who comes while one body is received would be let in to send his own,
        and most would be refused only after it. Leave the context just before `enter`.

        Raises: as `enter`.
        """
        self.check(lane, seconds=seconds)
        kept = self._lanes[lane].kept
        place = object()
        kept[place] = self._clock() + _KEPT_SECONDS, caller_var.get()
        try:
            yield
        finally:
            kept.pop(place, None)

    @contextmanager
    def enter(self, lane: str, *, seconds: float | None = None) -> Iterator[None]:
        """Hold one place in a lane.

        Args:
            lane: kind of work.
            seconds: what is left to the request; None: it has no deadline.

        Raises:
            ApiError: ``draining`` or ``saturated``, both 503, or ``too_many_at_once``, 429: the
                caller has so many places that the rest is left to others. With ``Retry-After``.
        """
        with span("admission", {"vtag.lane": lane}):
            self.check(lane, seconds=seconds)
        found = self._lanes[lane]
        waited = self.predicted_seconds(lane)
        began = self._clock()
        caller = caller_var.get()
        found.held[caller] += 1
        found.in_flight += 1
        self._metrics.in_flight.labels(lane).set(found.in_flight)
        try:
            yield
        finally:
            found.in_flight -= 1
            found.held[caller] -= 1
            if not found.held[caller]:
                del found.held[caller]
            self._metrics.in_flight.labels(lane).set(found.in_flight)
            now = self._clock()
            found.note(now, taken=now - began, waited=waited)


def _retry_after(seconds: float) -> int:
    spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - jitter
    return min(_MOST_RETRY_SECONDS, max(1, math.ceil(seconds * spread)))
