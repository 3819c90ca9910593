"""Fixtures shared by all tests: foreign data, real Redis, real Postgres, a tiny artefact."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from service.index.embedded import EmbeddedPostgres
from tests.redis_server import RedisServer

# A busy machine is slow, not wrong: pytest-timeout watches for what hangs.
hypothesis.settings.register_profile("vtag", deadline=None)
hypothesis.settings.load_profile("vtag")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a file or folder of the foreign test data, e.g. `shared_data("videos/flower.mp4")`.

    The data belongs to others and is not part of the repository. `VTAG_TEST_DATA` names its
    folder (default: `../shared` beside the clone); a test whose data is missing is skipped, or
    fails if `VTAG_TEST_REQUIRE_DATA` is set.
    """
    folder = Path(os.environ.get("VTAG_TEST_DATA", REPOSITORY.parent / "shared"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            reason = f"test data {name!r} not found in {folder} (set VTAG_TEST_DATA)"
            if os.environ.get("VTAG_TEST_REQUIRE_DATA"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real, empty Redis of its own for one test, reaped however the test ends."""
    with tempfile.TemporaryDirectory(prefix="vtag-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """DSN of the `postgres` database of a real cluster with pgvector, one for the session."""
    # Not below pytest's own folder: run as root the server becomes another user, and pytest
    # closes its folder to others whenever a second session starts.
    with (
        tempfile.TemporaryDirectory(prefix="vtag-pg-") as folder,
        asyncio.Runner() as runner,
    ):
        server = EmbeddedPostgres(Path(folder) / "cluster")
        runner.run(server.start())
        try:
            yield server.dsn
        finally:
            runner.run(server.stop())


_database_numbers = itertools.count(1)


@pytest.fixture
def postgres(postgres_cluster: str) -> Iterator[str]:
    """DSN of a fresh, empty database, dropped after the test."""
    name = f"test_{next(_database_numbers)}"
    asyncio.run(_execute(postgres_cluster, f'CREATE DATABASE "{name}"'))
    try:
        yield postgres_cluster.replace("/postgres?", f"/{name}?", 1)
    finally:
        # FORCE: a test that killed its client leaves sessions that nobody will close.
        asyncio.run(_execute(postgres_cluster, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def tiny_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one published artefact of a tiny network with random weights."""
    from tests.training.tiny import build_tiny_store  # imports torch

    return build_tiny_store(tmp_path_factory.mktemp("tiny") / "model_store")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Coroutine tests (`@pytest.mark.anyio`) run on asyncio, as the service does."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without a CUDA device, unless VTAG_TEST_REQUIRE_GPU asks them to fail."""
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    if not marked or os.environ.get("VTAG_TEST_REQUIRE_GPU"):
        return
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(
            reason="needs a CUDA device (VTAG_TEST_REQUIRE_GPU=1 makes this a failure)"
        )
        for item in marked:
            item.add_marker(skip)
