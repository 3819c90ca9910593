"""The index over each of the places that its vectors can be in."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.index.milvus import Milvus
from service.index.postgres import PostgresIndex

OpenIndex = Callable[..., PostgresIndex]


@pytest.fixture(scope="session")
def milvus_folder() -> Iterator[Path]:
    """A folder for files of milvus-lite; databases in one file do not meet."""
    with tempfile.TemporaryDirectory(prefix="vtag-milvus-") as folder:
        yield Path(folder)


@pytest.fixture(params=["postgres", pytest.param("milvus", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the vectors are."""
    return str(request.param)


@pytest.fixture
def make_index(kind: str, milvus_folder: Path) -> OpenIndex:
    """Make an index on a DSN, not yet started."""

    def make(dsn: str, *, exact_segments: int = 10_000) -> PostgresIndex:
        milvus = Milvus(str(milvus_folder / "vectors.db")) if kind == "milvus" else None
        return PostgresIndex(dsn, exact_segments=exact_segments, milvus=milvus)

    return make


@pytest.fixture
async def index(postgres: str, make_index: OpenIndex) -> AsyncIterator[PostgresIndex]:
    """An open, empty index."""
    index = make_index(postgres)
    await index.start()
    yield index
    await index.close()
