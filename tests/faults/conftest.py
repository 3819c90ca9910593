"""One service with everything it may depend on, each behind a network that can fail."""

import asyncio
import functools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import psutil
import pytest

from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.faults.load import LABELS, until
from tests.faults.reference import reference_scores
from tests.faults.tcp_proxy import TcpProxy
from tests.redis_server import RedisServer
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

_DATABASE = "faults"

START_SECONDS = 240.0
"""These tests want to know what a fault does, not how quick the machine is."""


@dataclass(eq=False)
class World:
    """A running service and the reference for what it answers."""

    service: RunningService
    state: Path
    folder: Path
    film_path: Path
    film: bytes
    redis: RedisServer
    redis_proxy: TcpProxy
    postgres: str
    postgres_proxy: TcpProxy

    @property
    def url(self) -> str:
        """Where the service listens."""
        return self.service.url

    def expect(self, space: str) -> Mapping[str, float]:
        """What an answer of this space must be."""
        return self._reference(float(space.rpartition("/")[2]))

    @functools.cache  # noqa: B019 - lives as long as the session
    def _reference(self, clip_weight: float) -> Mapping[str, float]:
        return reference_scores(
            self.folder, clip_weight=clip_weight, film=self.film_path, labels=LABELS
        )

    def workers(self, kind: str) -> list[psutil.Process]:
        """The processes that run `service.<kind>.worker`, `decode` or `encode`."""
        return workers_of(self.service, kind)

    def components(self) -> Mapping[str, str]:
        """What `/readyz` says, ready or not."""
        found: Mapping[str, str] = httpx.get(f"{self.url}/readyz", timeout=30).json()["components"]
        return found

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        return httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200


def workers_of(service: RunningService, kind: str) -> list[psutil.Process]:
    """The running workers of a service."""
    found = []
    for each in psutil.Process(service.process.pid).children(recursive=True):
        try:
            if f"service.{kind}.worker" in each.cmdline() and each.status() != "zombie":
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="session")
def film_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture(scope="session")
def whole_world(postgres_cluster: str, film_path: Path) -> Iterator[World]:
    """The service of all tests here; every test leaves it healed."""
    with tempfile.TemporaryDirectory(prefix="vtag-faults-") as name, state_folder() as state:
        root = Path(name) / "model_store"
        manifest = publish(root, text_tower_tuned=True)
        (Path(name) / "redis").mkdir()
        redis = RedisServer(Path(name) / "redis")
        redis_proxy = TcpProxy(("127.0.0.1", redis.port))
        asyncio.run(create_database(postgres_cluster, _DATABASE))
        [folder] = parse_qs(urlsplit(postgres_cluster).query)["host"]
        postgres_proxy = TcpProxy(Path(folder) / ".s.PGSQL.5432")
        settings = {
            "VTAG_MODEL_STORE": str(root),
            "VTAG_REDIS_URL": f"redis://127.0.0.1:{redis_proxy.port}/0",
            "VTAG_DATABASE_URL": (
                f"postgresql://postgres@127.0.0.1:{postgres_proxy.port}/{_DATABASE}"
            ),
            "VTAG_DECODE_WORKERS": "2",
            "VTAG_ENCODER_THREADS": "1",
            "VTAG_DECODE_TIMEOUT_SECONDS": "6",
            "VTAG_ENCODER_TIMEOUT_SECONDS": "6",
            "VTAG_REQUEST_TIMEOUT_SECONDS": "30",
            "VTAG_SEGMENT_SECONDS": "1",
            "VTAG_TEXT_CACHE_ENTRIES": "500",  # small enough to be overrun, so that Redis counts
        }
        try:
            with running_service(
                state, environment=settings, start_seconds=START_SECONDS
            ) as service:
                yield World(
                    service=service,
                    state=state,
                    folder=root / manifest.name / manifest.revision,
                    film_path=film_path,
                    film=film_path.read_bytes(),
                    redis=redis,
                    redis_proxy=redis_proxy,
                    postgres=postgres_cluster.replace("/postgres?", f"/{_DATABASE}?", 1),
                    postgres_proxy=postgres_proxy,
                )
        finally:
            redis_proxy.close()
            postgres_proxy.close()
            redis.close()


@pytest.fixture
def world(whole_world: World) -> Iterator[World]:
    """The service, ready before each test and ready again, by itself, after it."""
    until(whole_world.ready, seconds=120)
    yield whole_world
    whole_world.redis_proxy.heal()
    whole_world.postgres_proxy.heal()
    until(whole_world.ready, seconds=120)


async def create_database(dsn: str, name: str) -> None:
    """Make an empty one, on the server that `dsn` names."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
