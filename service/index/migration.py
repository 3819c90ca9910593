"""Brings a database to the shape this code works with: Alembic's steps over our own connection."""

from __future__ import annotations

import asyncio
import logging
from io import StringIO
from pathlib import Path
from typing import Any, Final

import asyncpg

from service.index.video_index import IndexSetupError

_STEPS: Final = Path(__file__).with_name("migrations")
_VERSION: Final = "SELECT version_num FROM alembic_version"


async def upgrade(connection: Any) -> None:
    """Take the steps that a database has not taken.

    The caller holds the lock, has set the search path, and is in a transaction: all steps are
    taken, or none.

    Args:
        connection: of asyncpg.

    Raises:
        IndexSetupError: the database is of a newer version of this service.
    """
    try:
        async with connection.transaction():
            taken: str | None = await connection.fetchval(_VERSION)
    except asyncpg.UndefinedTableError:
        taken = None
    statements = await asyncio.to_thread(script, taken)
    if statements:
        await connection.execute(statements)


def script(taken: str | None, *, until: str = "heads") -> str:
    """Return the SQL of the steps that are missing; empty if there are none.

    Alembic writes them down and asyncpg runs them (Alembic's "offline mode"): so the service needs
    no second driver, and the steps run on the connection that holds the lock.

    Args:
        taken: the last step that a database has taken.
        until: the last step to take.

    Raises:
        IndexSetupError: no such step is known here.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it names each of its parts otherwise
    # Imported here: half a second that only the start pays.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(_STEPS), version_locations=[str(_STEPS)])
    known = {step.revision for step in steps.walk_revisions()}
    if taken is not None and taken not in known:
        raise IndexSetupError(
            f"the database was brought to {taken} by a newer version of this service,"
            f" which knows up to {steps.get_current_head()}; run that version, or restore a copy"
        )
    if taken == steps.get_current_head():
        return ""
    written = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # the default doubles every per cent sign
        opts={
            "as_sql": True,
            "output_buffer": written,
            "starting_rev": taken,
            "transactional_ddl": False,  # the caller's transaction
            "fn": lambda revision, _: steps._upgrade_revs(until, revision),
        },
    )
    with Operations.context(context):
        context.run_migrations()
    return written.getvalue()
