"""Answers kept for clients that ask again: one for each Idempotency-Key, in Postgres or here."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from service.index.database import Database

_SWEEP_SECONDS: Final = 60.0
_MOST_ROWS: Final = 100_000


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that was given.

    Attributes:
        fingerprint: digest of the request that it answers.
        status: of HTTP.
        headers: names in lower case, and values.
        body: as it was sent.
    """

    fingerprint: bytes
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Found = Literal["new", "busy"] | KeptAnswer
"""What becomes of a key: nobody has it and the caller must `finish` or `release` it; somebody works
under it; or the answer."""


class KeptAnswers(Protocol):
    """Where answers are kept. A key is a digest, an attempt a name of one request under it.

    Attributes:
        lease_seconds: how long a key is taken for an attempt that is not renewed.
    """

    lease_seconds: float

    async def begin(self, key: bytes, *, attempt: str) -> Found:
        """Take the key for this attempt if it is free."""

    async def finish(self, key: bytes, *, attempt: str, answer: KeptAnswer) -> None:
        """Keep the answer of this attempt."""

    async def renew(self, key: bytes, *, attempt: str) -> None:
        """The attempt goes on: begin its lease anew."""

    async def release(self, key: bytes, *, attempt: str) -> None:
        """Free the key: the attempt came to nothing that is worth keeping."""


def answer_key(caller: str, method: str, path: str, key: str) -> bytes:
    """Return the digest that stands for a client's key: nobody finds the answer of another."""
    return hashlib.sha256("\0".join((caller, method, path, key)).encode()).digest()


class AnswersInMemory:
    """Answers of this process, for services without Postgres of ours.

    Args:
        seconds: how long an answer is kept.
        lease_seconds: how long a key is taken for an attempt that is not renewed.
        most: answers kept; the oldest goes first.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        seconds: float,
        lease_seconds: float,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self.lease_seconds = lease_seconds
        self._most = most
        self._clock = clock
        # key -> attempt, end of the lease or of the answer's life, answer
        self._kept: OrderedDict[bytes, tuple[str, float, KeptAnswer | None]] = OrderedDict()

    async def begin(self, key: bytes, *, attempt: str) -> Found:
        """Take the key for this attempt if it is free."""
        now = self._clock()
        _, end, answer = self._kept.get(key, ("", now, None))
        if end > now:
            return "busy" if answer is None else answer
        self._put(key, (attempt, now + self.lease_seconds, None))
        return "new"

    async def finish(self, key: bytes, *, attempt: str, answer: KeptAnswer) -> None:
        """Keep the answer of this attempt."""
        if self._kept.get(key, ("", 0.0, None))[0] == attempt:
            self._put(key, (attempt, self._clock() + self._seconds, answer))

    async def renew(self, key: bytes, *, attempt: str) -> None:
        """Begin the lease of this attempt anew."""
        owner, _, answer = self._kept.get(key, ("", 0.0, None))
        if owner == attempt and answer is None:
            self._put(key, (attempt, self._clock() + self.lease_seconds, None))

    async def release(self, key: bytes, *, attempt: str) -> None:
        """Free the key."""
        if self._kept.get(key, ("", 0.0, None))[0] == attempt:
            del self._kept[key]

    def _put(self, key: bytes, entry: tuple[str, float, KeptAnswer | None]) -> None:
        self._kept[key] = entry
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


class AnswersInPostgres:
    """Answers that all replicas share and that outlive them.

    All methods raise `IndexUnavailableError` while Postgres does not answer.

    Args:
        database: started.
        seconds: how long an answer is kept.
        lease_seconds: how long a key is taken for an attempt that is not renewed; then its process
            is taken for dead.
        most: rows; those that would expire first go first.
    """

    def __init__(
        self,
        database: Database,
        *,
        seconds: float,
        lease_seconds: float,
        most: int = _MOST_ROWS,
    ) -> None:
        self._database = database
        self._seconds = seconds
        self.lease_seconds = lease_seconds
        self._most = most
        self._swept = -_SWEEP_SECONDS

    async def begin(self, key: bytes, *, attempt: str) -> Found:
        """Take the key for this attempt if it is free."""
        if time.monotonic() - self._swept >= _SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self._database.run(self._sweep)

        async def work(connection: Any) -> Found:
            taken = await connection.fetchval(
                "INSERT INTO answers AS a (key, attempt, locked_until, expires_at)"
                " VALUES ($1, $2, now() + $3 * interval '1 s', now() + $4 * interval '1 s')"
                " ON CONFLICT (key) DO UPDATE SET attempt = excluded.attempt,"
                " locked_until = excluded.locked_until, expires_at = excluded.expires_at,"
                " fingerprint = NULL, status = NULL, headers = NULL, body = NULL"
                " WHERE a.expires_at <= now() OR a.attempt = excluded.attempt"  # the second try
                " OR (a.status IS NULL AND a.locked_until <= now()) RETURNING attempt",
                key,
                attempt,
                self.lease_seconds,
                self.lease_seconds + self._seconds,
            )
            if taken is not None:
                return "new"
            row = await connection.fetchrow(
                "SELECT fingerprint, status, headers, body FROM answers"
                " WHERE key = $1 AND status IS NOT NULL",
                key,
            )
            if row is None:
                return "busy"
            headers = tuple((name, value) for name, value in row["headers"])
            return KeptAnswer(row["fingerprint"], row["status"], headers, row["body"])

        return await self._database.run(work)

    async def finish(self, key: bytes, *, attempt: str, answer: KeptAnswer) -> None:
        """Keep the answer of this attempt."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE answers SET fingerprint = $3, status = $4, headers = $5, body = $6,"
                " expires_at = now() + $7 * interval '1 s' WHERE key = $1 AND attempt = $2",
                key,
                attempt,
                answer.fingerprint,
                answer.status,
                [list(header) for header in answer.headers],
                answer.body,
                self._seconds,
            )
        )

    async def renew(self, key: bytes, *, attempt: str) -> None:
        """Begin the lease of this attempt anew."""
        await self._database.run(
            lambda c: c.execute(
                "UPDATE answers SET locked_until = now() + $3 * interval '1 s'"
                " WHERE key = $1 AND attempt = $2 AND status IS NULL",
                key,
                attempt,
                self.lease_seconds,
            )
        )

    async def release(self, key: bytes, *, attempt: str) -> None:
        """Free the key."""
        await self._database.run(
            lambda c: c.execute("DELETE FROM answers WHERE key = $1 AND attempt = $2", key, attempt)
        )

    async def _sweep(self, connection: Any) -> None:
        await connection.execute("DELETE FROM answers WHERE expires_at <= now()")
        await connection.execute(
            "DELETE FROM answers WHERE key IN"
            " (SELECT key FROM answers ORDER BY expires_at DESC OFFSET $1)",
            self._most,
        )
