"""Connections to Postgres: start, pool, and one more try when a connection is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg
import orjson
from pgvector.asyncpg import register_vector

from service.index import migration, queue_schema
from service.index.embedded import EmbeddedPostgres
from service.index.video_index import IndexSetupError, IndexUnavailableError
from service.tracing import span

logger = logging.getLogger("vtag")

T = TypeVar("T")

LOCK: Final = 0x76746167  # "vtag": services that change the schema at the same time take turns

_SCHEMA: Final = queue_schema.SCHEMA
_COMMAND_SECONDS: Final = 60.0
_PLAIN_IDLE_SECONDS: Final = 60.0
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TransactionRollbackError,  # a deadlock, say: passes
)
_REFUSED = (
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or an operator's maintenance
    asyncpg.InsufficientResourcesError,  # its disk or memory is full
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,  # its disk fails
)
"""The server is there and will not do it now; asking again at once would not help."""


_SESSION: Final = {
    "application_name": "vtag",
    # Statements are short and many: compiling them, or guessing at a plan for all values, costs
    # more than it saves.
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
    # Whoever is killed does not leave a long statement running.
    "client_connection_check_interval": "5s",
}


class Database:
    """A pool of connections to one server; an embedded one is started and stopped with it."""

    def __init__(self, dsn: str | EmbeddedPostgres) -> None:
        self._embedded = dsn if isinstance(dsn, EmbeddedPostgres) else None
        self._dsn = dsn if isinstance(dsn, str) else ""
        self._pool: Any = None
        self._plain: Any = None
        self._options: dict[str, str] = {}
        self._codecs = _Codecs("")

    async def start(self) -> None:
        """Start the embedded server if there is one, upgrade its schema, open connections."""
        if self._embedded is not None:
            await self._embedded.start()
            self._dsn = self._embedded.dsn
        try:
            schema = await self._migrate()
            self._options = {"search_path": f'{_SCHEMA}, "{schema}"', **_SESSION}
            self._codecs = _Codecs(schema)
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=8,
                command_timeout=_COMMAND_SECONDS,
                timeout=10,
                init=self._codecs,
                server_settings=self._options,
            )
            self._plain = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=4,
                max_inactive_connection_lifetime=_PLAIN_IDLE_SECONDS,
                command_timeout=_COMMAND_SECONDS,
                timeout=10,
                server_settings=self._options,
            )
        except (*_LOST, asyncpg.PostgresError, ValueError) as error:
            # The DSN may hold a password and the library repeats what it likes: name the kind only.
            where = "the embedded Postgres" if self._embedded else "VTAG_DATABASE_URL"
            raise IndexSetupError(f"{where}: cannot be used ({type(error).__name__})") from error

    async def _migrate(self) -> str:
        """Bring the schema to its present shape; return where the vector type lives."""
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            available = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
            if await connection.fetchval(available) is None:
                raise IndexSetupError("VTAG_DATABASE_URL: this server has no pgvector extension")
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                found = await connection.fetchval(
                    "SELECT nspname FROM pg_namespace n JOIN pg_type t ON t.typnamespace = n.oid"
                    " WHERE typname = 'vector'"
                )
                schema: str = str(found)
                if await connection.fetchval("SELECT to_regnamespace($1)::oid", _SCHEMA) is None:
                    await connection.execute(f"CREATE SCHEMA {_SCHEMA}")
                await connection.execute(f'SET LOCAL search_path = {_SCHEMA}, "{schema}"')
                await migration.upgrade(connection)
            await queue_schema.upgrade(connection)
        finally:
            await connection.close()
        return schema

    async def close(self) -> None:
        """Close the connections, then the embedded server."""
        pools, self._pool, self._plain = (self._pool, self._plain), None, None
        for pool in pools:
            if pool is None:
                continue
            try:
                await asyncio.wait_for(pool.close(), 5)
            except (TimeoutError, *_LOST):
                pool.terminate()
        if self._embedded is not None:
            await self._embedded.stop()

    async def connect(self) -> Any:
        """Open a connection that may take its time; the caller closes it.

        Raises:
            IndexUnavailableError: there is none now.
        """
        try:
            connection = await asyncpg.connect(self._dsn, timeout=10, server_settings=self._options)
            await self._codecs(connection)
        except _LOST as error:
            raise IndexUnavailableError from error
        return connection

    async def run(self, work: Callable[[Any], Awaitable[T]], *, plain: bool = False) -> T:
        """Run ``work`` on a connection; once more if the connection was lost.

        So everything given here must bear being run twice.

        Args:
            work: what is done.
            plain: on a connection that hands JSON over as text, as libraries expect it.

        Raises:
            IndexUnavailableError: it was lost twice, or the server refuses: read-only, full.
        """
        for last in (False, True):
            try:
                with span("postgres", {"db.system.name": "postgresql"}, client=True):
                    async with self._connection(plain=plain) as connection:
                        return await work(connection)
            except _LOST:
                if last:
                    break
                pool = self._plain if plain else self._pool
                if pool is not None:
                    await pool.expire_connections()
                await asyncio.sleep(0.2)
            except _REFUSED as error:
                # The kind only: what the library says may repeat what clients sent.
                logger.warning("the database refuses: %s", type(error).__name__)
                break
        raise IndexUnavailableError

    @asynccontextmanager
    async def _connection(self, *, plain: bool) -> AsyncIterator[Any]:
        pool = self._plain if plain else self._pool
        if pool is None:
            raise IndexUnavailableError
        async with pool.acquire(timeout=10) as connection:
            yield connection


class _Codecs:
    """Sets up a connection of the pool."""

    def __init__(self, schema: str) -> None:
        self._schema = schema

    async def __call__(self, connection: Any) -> None:
        await register_vector(connection, schema=self._schema)
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            encoder=lambda value: orjson.dumps(value).decode(),
            decoder=orjson.loads,
        )
