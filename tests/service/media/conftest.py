"""Stores of every kind, the one of S3 on a real server."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.media.folder import FolderStore
from service.media.s3 import BucketStore
from service.media.store import MediaStore
from tests.s3_server import S3Server

_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server."""
    with tempfile.TemporaryDirectory(prefix="vtag-s3-") as folder:
        server = S3Server(Path(folder))
        server.make_bucket("videos")
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["folder", "s3"])
def make_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], MediaStore]:
    """Opens one and the same place, again and again."""
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / "media", reserve_bytes=0, writer="me")
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = f"some/where/{next(_prefixes)}"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return lambda: BucketStore(f"s3://videos/{prefix}", scratch=scratch)


@pytest.fixture
def store(make_store: Callable[[], MediaStore]) -> MediaStore:
    """A place for videos that is empty."""
    return make_store()
