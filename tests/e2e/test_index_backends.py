"""What clients see does not depend on where records and vectors are: one suite, other settings."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import REPOSITORY
from tests.faults.tcp_proxy import TcpProxy

SUITE = (
    *("test_collections", "test_reindex", "test_search", "test_search_by_example"),
    *("test_segments", "test_spaces", "test_thumbnails", "test_videos"),
)


@pytest.fixture
def server(postgres_cluster: str) -> Iterator[str]:
    """DSN of a Postgres that the services do not start, reached by TCP."""
    [folder] = parse_qs(urlsplit(postgres_cluster).query)["host"]
    proxy = TcpProxy(Path(folder) / ".s.PGSQL.5432")
    try:
        yield f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    finally:
        proxy.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["server", "milvus"])
def test_the_suite_passes_on_another_index(kind: str, request: pytest.FixtureRequest) -> None:
    """A server Postgres by DSN, and milvus-lite for the vectors, as the embedded Postgres."""
    wanted = request.getfixturevalue("server") if kind == "server" else kind
    files = [f"tests/e2e/{name}.py" for name in SUITE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=REPOSITORY,
        env={**os.environ, "VTAG_TEST_INDEX": wanted},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
