"""A running service with a small artefact, as its clients see it."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.drawn_video import draw_video
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one artefact of two linear towers: answers can be computed by hand."""
    root = tmp_path_factory.mktemp("small") / "model_store"
    publish(root, background=tuple(f"thing {number}" for number in range(30)))
    return root


@contextmanager
def state_folder() -> Iterator[Path]:
    """A folder for the state of one service, for fixtures of any scope."""
    # Not below pytest's folder: it is closed to others, and root's Postgres is another user.
    with tempfile.TemporaryDirectory(prefix="vtag-e2e-") as folder:
        yield Path(folder)


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder for the state of one service."""
    with state_folder() as folder:
        yield folder


@contextmanager
def make_client(environment: Mapping[str, str]) -> Iterator[httpx.Client]:
    """Start a service with these settings and yield a client of it."""
    with (
        state_folder() as folder,
        running_service(folder, environment=environment) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def service(small_store: Path) -> Iterator[RunningService]:
    """One service for all tests that leave it as they found it."""
    settings = {"VTAG_MODEL_STORE": str(small_store), "VTAG_SEGMENT_SECONDS": "1"}
    with state_folder() as folder, running_service(folder, environment=settings) as running:
        yield running


@pytest.fixture(scope="session")
def session_client(service: RunningService) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture
def client(session_client: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the service; videos that a test indexed are removed after it."""
    yield session_client
    for video in session_client.get("/videos", params={"limit": 200}).json()["data"]:
        session_client.delete(f"/videos/{video['id']}")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Bytes of a drawn video; another length is another video."""
    folder = tmp_path_factory.mktemp("films")

    def make(*, seconds: float = 2.0, width: int = 160) -> bytes:
        path = folder / f"{seconds:g}-{width}.mp4"
        if not path.exists():
            draw_video(path, seconds=seconds, width=width)
        return path.read_bytes()

    return make
