"""Requests that come when they come, however slow the answers are; and what became of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.wire import Answer, Connection, NoAnswerError

_TICK_SECONDS = 0.002


@dataclass
class Outcomes:
    """What became of all requests.

    Attributes:
        admitted: seconds of those that were let in: answered with 200, or too late (504).
        late: of these, how many were not 200.
        refused: seconds of 503 and 429.
        counts: by status and code of the problem.
        lost: requests that were sent and not answered.
        held_back: arrivals that were not sent: too many connections were open.
        lags: seconds from when a request was due until it was sent: the generator's own delay.
        good_at: when answers of success came, seconds since the start.
    """

    admitted: list[float] = field(default_factory=list)
    late: int = 0
    refused: list[float] = field(default_factory=list)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    held_back: int = 0
    lags: list[float] = field(default_factory=list)
    good_at: list[float] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Requests that were sent."""
        return self.counts.total() + self.lost.total()

    def note(self, answer: Answer, *, at: float) -> None:
        """Count one answer."""
        self.counts[answer.status, answer.code] += 1
        if answer.status in (200, 504):
            self.admitted.append(answer.seconds)
            self.late += answer.status != 200
            if answer.status == 200:
                self.good_at.append(at)
        elif answer.status in (429, 503):
            self.refused.append(answer.seconds)


class Arrivals:
    """A Poisson process of requests on connections that are used again.

    Args:
        url: of the service.
        request: what is sent, see `classify_request`.
        most_open: connections; arrivals beyond them are counted and not sent.
    """

    def __init__(self, url: str, request: bytes, *, most_open: int) -> None:
        self.outcomes = Outcomes()
        self._url = url
        self._request = request
        self._most_open = most_open
        self._idle: list[Connection] = []
        self._running: set[asyncio.Task[None]] = set()
        self._began = 0.0

    async def run(self, *, rate: float, seconds: float, seed: int = 0) -> Outcomes:
        """Send `rate` requests a second for `seconds`; return when all have been answered."""
        draw = random.Random(seed)
        self._began = began = time.perf_counter()
        due = draw.expovariate(rate)
        while due < seconds:
            now = time.perf_counter() - began
            while due <= now and due < seconds:
                self._arrive(due)
                due += draw.expovariate(rate)
            await asyncio.sleep(max(_TICK_SECONDS, due - (time.perf_counter() - began)))
        while self._running:
            await asyncio.wait(self._running)
        for connection in self._idle:
            connection.close()
        return self.outcomes

    def _arrive(self, due: float) -> None:
        if len(self._running) >= self._most_open:
            self.outcomes.held_back += 1
            return
        task = asyncio.create_task(self._send(due))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send(self, due: float) -> None:
        try:
            connection = await self._connection()
            self.outcomes.lags.append(time.perf_counter() - self._began - due)
            answer = await connection.ask(self._request)
        except (NoAnswerError, OSError) as error:
            self.outcomes.lost[type(error).__name__] += 1
            return
        self.outcomes.note(answer, at=time.perf_counter() - self._began)
        if connection.is_open:
            self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.close()
        return await Connection.open(self._url)


async def saturate(url: str, request: bytes, *, clients: int, seconds: float) -> list[float]:
    """Have `clients` ask without a pause for `seconds`; return seconds of each answer of success.

    The answers that come later are waited for, and not counted.
    """
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        connection = await Connection.open(url)
        while time.perf_counter() < end:
            answer = await connection.ask(request)
            if answer.status == 200 and time.perf_counter() < end:
                taken.append(answer.seconds)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return taken


def quantiles(values: list[float]) -> str:
    """Median, 99th percentile and the worst, in milliseconds."""
    if not values:
        return "none"
    median, high, worst = 1e3 * np.quantile(values, [0.5, 0.99, 1.0])
    return f"p50 {median:.1f} ms, p99 {high:.1f} ms, worst {worst:.1f} ms"
