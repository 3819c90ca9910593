"""What Postgres knows about the bytes of videos: sizes, their sum, and who holds them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.index.database import Database

BATCH: Final = 1000
Delete = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Kept:
    """The bytes of a video, as they are kept.

    Attributes:
        sha256: their digest, in hexadecimal.
        size_bytes: how many there are.
        content_type: what kind of file they are.
    """

    sha256: str
    size_bytes: int
    content_type: str


class MediaRecords:
    """The three tables. All methods raise `IndexUnavailableError` while Postgres is away.

    Whoever removes bytes does so while the row is locked: who wants to keep them waits for it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owner(self) -> str:
        """Return the name of this database."""
        found = await self._database.run(lambda c: c.fetchval("SELECT owner FROM media_total"))
        return str(found)

    async def hold(self, kept: Kept, *, token: str, seconds: float, max_bytes: int) -> bool:
        """Let nobody remove these bytes for a while; False: there is no room for them."""

        async def work(connection: Any) -> bool:
            async with connection.transaction():
                # The update locks the row: who removes it has finished, or waits for us.
                is_new = await connection.fetchval(
                    "INSERT INTO media (sha256, size_bytes, content_type) VALUES ($1, $2, $3)"
                    " ON CONFLICT (sha256) DO UPDATE SET sha256 = excluded.sha256"
                    " RETURNING xmax = 0",
                    kept.sha256,
                    kept.size_bytes,
                    kept.content_type,
                )
                if is_new:
                    fits = await connection.fetchval(
                        "UPDATE media_total SET bytes = bytes + $1 WHERE bytes + $1 <= $2"
                        " RETURNING true",
                        kept.size_bytes,
                        max_bytes,
                    )
                    if not fits:
                        raise _NoRoomError
                await connection.execute(
                    "INSERT INTO media_holds (sha256, token, until)"
                    " VALUES ($1, $2, now() + make_interval(secs => $3)) ON CONFLICT DO NOTHING",
                    kept.sha256,
                    token,
                    seconds,
                )
            return True

        try:
            return await self._database.run(work)
        except _NoRoomError:
            return False

    async def release(self, sha256: str, *, token: str) -> None:
        """End a hold."""
        await self._database.run(
            lambda c: c.execute(
                "DELETE FROM media_holds WHERE sha256 = $1 AND token = $2", sha256, token
            )
        )

    async def release_all(self, holder: str) -> None:
        """End all holds whose token begins with this name."""
        await self._database.run(
            lambda c: c.execute(
                "DELETE FROM media_holds WHERE starts_with(token, $1)", f"{holder}-"
            )
        )

    async def mark_kept(self, sha256: str) -> None:
        """Say that the store has the bytes."""
        await self._database.run(
            lambda c: c.execute("UPDATE media SET kept = true WHERE sha256 = $1", sha256)
        )

    async def find(self, sha256: str) -> Kept | None:
        """Return what is known about bytes that the store has."""
        row = await self._database.run(
            lambda c: c.fetchrow("SELECT * FROM media WHERE sha256 = $1 AND kept", sha256)
        )
        return None if row is None else Kept(sha256, row["size_bytes"], row["content_type"])

    async def kept_videos(self, video_ids: Sequence[str]) -> set[str]:
        """Return those of `video_ids` whose bytes the store has."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT v.id FROM videos v JOIN media m ON m.sha256 = v.sha256 AND m.kept"
                " WHERE v.id = ANY($1::text[])",
                list(video_ids),
            )
        )
        return {row["id"] for row in rows}

    async def total_bytes(self) -> int:
        """Return the sum of all sizes."""
        found = await self._database.run(lambda c: c.fetchval("SELECT bytes FROM media_total"))
        return int(found)

    async def unused(self) -> list[str]:
        """Return digests that no video has and nobody holds; at most `BATCH` of them."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT sha256 FROM media m"
                " WHERE NOT EXISTS (SELECT FROM videos v WHERE v.sha256 = m.sha256)"
                " AND NOT EXISTS (SELECT FROM media_holds h"
                "                 WHERE h.sha256 = m.sha256 AND h.until > now()) LIMIT $1",
                BATCH,
            )
        )
        return [row["sha256"] for row in rows]

    async def remove_unused(self, sha256: str, *, delete: Delete) -> None:
        """Delete bytes and their row, unless a video has them or somebody holds them."""

        async def work(connection: Any) -> None:
            async with connection.transaction():
                # One statement to wait for the row, the next to see what became of it meanwhile.
                size = await connection.fetchval(
                    "SELECT size_bytes FROM media WHERE sha256 = $1 FOR UPDATE", sha256
                )
                is_used = await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM videos WHERE sha256 = $1)"
                    " OR EXISTS (SELECT FROM media_holds WHERE sha256 = $1 AND until > now())",
                    sha256,
                )
                if size is None or is_used:
                    return
                await delete(sha256)
                await connection.execute("DELETE FROM media WHERE sha256 = $1", sha256)
                await connection.execute("UPDATE media_total SET bytes = bytes - $1", size)

        await self._database.run(work)

    async def unknown(self, digests: Sequence[str]) -> set[str]:
        """Return those of `digests` that have no row."""
        rows = await self._database.run(
            lambda c: c.fetch(
                "SELECT sha256 FROM media WHERE sha256 = ANY($1::text[])", list(digests)
            )
        )
        return set(digests) - {row["sha256"] for row in rows}

    async def remove_unknown(self, sha256: str, *, delete: Delete) -> None:
        """Delete bytes that have no row."""

        async def work(connection: Any) -> None:
            async with connection.transaction():
                # A row of our own, until the end of the transaction: nobody adds one meanwhile.
                is_ours = await connection.fetchval(
                    "INSERT INTO media (sha256, size_bytes, content_type) VALUES ($1, 0, '')"
                    " ON CONFLICT DO NOTHING RETURNING true",
                    sha256,
                )
                if is_ours:
                    await delete(sha256)
                    await connection.execute("DELETE FROM media WHERE sha256 = $1", sha256)

        await self._database.run(work)


class _NoRoomError(Exception):
    """Undoes the transaction."""
