"""The tables of the queue library (pgqueuer) beside ours, made and upgraded by its own means."""

from __future__ import annotations

from typing import Any, Final

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel
from pgqueuer.ports.driver import Driver

SCHEMA: Final = "vtag"

SETTINGS: Final = DBSettings(
    # Every name: what is left out would be read from the environment, under short names such as
    # CHANNEL. They are the defaults of the library, so that its own tools work (PGQUEUER_SCHEMA).
    prefix="",
    db_schema=SCHEMA,
    channel=Channel("ch_vtag_jobs"),
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
)


def queries(driver: Driver) -> Queries:
    """Return the statements of the library, over a driver of it.

    Its connections must hand JSON over as text, as asyncpg does when it is told nothing.
    """
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(SETTINGS),
        qbq=QueryQueueBuilder(SETTINGS),
        qbs=QuerySchedulerBuilder(SETTINGS),
    )


def installation() -> str:
    """Return the SQL that makes the tables in a database that has none of them."""
    return QueryBuilderEnvironment(SETTINGS).build_install_query(create_schema=False)


async def upgrade(connection: Any) -> None:
    """Bring tables that an older version of the library made to what this one works with.

    Nothing is done where nothing is missing. Not in a transaction: labels of an enum are added,
    which cannot be used in the same one. The library lets one service do it at a time.

    Args:
        connection: of asyncpg, plain.
    """
    await queries(AsyncpgDriver(connection)).upgrade()
