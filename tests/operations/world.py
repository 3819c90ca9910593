"""One service with everything that it depends on, all of which can be broken; and its load."""

import asyncio
import itertools
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx

from service.index.embedded import EmbeddedPostgres
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.faults.tcp_proxy import TcpProxy
from tests.redis_server import RedisServer
from tests.running_service import RunningService, running_service

_DISK_BYTES = 16 * 1024 * 1024
RESERVE_BYTES = _DISK_BYTES // 4
"""Of the small disk, that uploads leave free."""

_DATABASE = "operations"
_LABELS = ("a red square", "a blue circle", "a green star", "a white cross", "a ring that grows")

_numbers = itertools.count()


class Postgres:
    """A real cluster that is ended and started again at will, behind one address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._server = EmbeddedPostgres(folder)
        self._loop.run_until_complete(self._server.start())
        [socket] = parse_qs(urlsplit(self._server.dsn).query)["host"]
        self._loop.run_until_complete(_create_database(self._server.dsn))
        self._proxy = TcpProxy(Path(socket) / ".s.PGSQL.5432")
        self.url = f"postgresql://postgres@127.0.0.1:{self._proxy.port}/{_DATABASE}"

    def end(self) -> None:
        """Stop the server; connections break."""
        self._loop.run_until_complete(self._server.stop())
        self._proxy.cut()

    def start(self) -> None:
        """Start it again on the same data."""
        self._server = EmbeddedPostgres(self._folder)
        self._loop.run_until_complete(self._server.start())

    def close(self) -> None:
        """End everything."""
        self._proxy.close()
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()


@dataclass(frozen=True)
class World:
    """What a drill breaks.

    Attributes:
        service: it runs the demo model from a copy of the store.
        store: that copy.
        film: a video.
        redis: its Redis.
        postgres: its Postgres.
        spool: where uploads wait.
        has_disk: whether that is a small disk of its own: only root may mount one.
    """

    service: RunningService
    store: Path
    film: bytes
    redis: RedisServer
    postgres: Postgres
    spool: Path
    has_disk: bool

    @property
    def target(self) -> str:
        """Host and port, for Prometheus."""
        return urlsplit(self.service.url).netloc


@contextmanager
def world() -> Iterator[World]:
    """Start it all; end it all afterwards."""
    with ExitStack() as stack:
        # Not below pytest's folder: run as root, Postgres is another user.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vtag-operations-")))
        folder.chmod(0o755)
        film = draw_video(folder / "film.mp4", seconds=4, width=320, height=240)
        store = shutil.copytree(REPOSITORY / "model_store", folder / "model_store")
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis")
        stack.callback(redis.close)
        postgres = Postgres(folder / "cluster")
        stack.callback(postgres.close)
        spool = folder / "data" / "spool"
        spool.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(spool)]
        has_disk = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        if has_disk:
            stack.callback(subprocess.run, ["umount", "--lazy", str(spool)], check=True)
        settings = {
            "VTAG_MODEL_STORE": str(store),
            "VTAG_REDIS_URL": redis.url,
            "VTAG_DATABASE_URL": postgres.url,
            "VTAG_DECODE_WORKERS": "2",
            "VTAG_ENCODER_THREADS": "1",
            "VTAG_MAX_IN_FLIGHT": "2",
            "VTAG_STORE_WATCH_SECONDS": "0",
            "VTAG_SPOOL_RESERVE_BYTES": str(RESERVE_BYTES) if has_disk else "0",
            "VTAG_TEXT_CACHE_ENTRIES": "500",
        }
        service = stack.enter_context(running_service(folder, environment=settings))
        yield World(service, store, film.read_bytes(), redis, postgres, spool, has_disk)


@dataclass
class Load:
    """What clients were answered: status -> how often."""

    statuses: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: httpx.Response) -> None:
        """Count one."""
        with self._lock:
            self.statuses[answer.status_code] += 1


@contextmanager
def everyday(world: World) -> Iterator[Load]:
    """One client of everything, with pauses: tagging, indexing, search, new labels, nonsense."""
    load = Load()
    with httpx.Client(base_url=world.service.url, timeout=60) as client:

        def one(number: int) -> None:
            # A stage of a request that leads nowhere is for the board of errors.
            labels = [*_LABELS, f"a label that nobody sent before, {number}"]
            load.note(
                client.post("/classify", files={"video": world.film}, data={"labels": labels})
            )
            load.note(client.post("/search", json={"query": f"a red square {number % 7}"}))
            if number % 5 == 0:
                load.note(client.post("/videos", files={"video": world.film}))
            if number % 4 == 1:
                nonsense = {"video": b"this is no video at all, it is %d" % number}
                load.note(client.post("/classify", files=nonsense, data={"labels": _LABELS}))
                load.note(client.get("/no-such-path"))

        with running(one, pause_seconds=0.1):
            yield load


@contextmanager
def crowd(world: World, *, clients: int) -> Iterator[Load]:
    """Clients that come back sooner than they are asked to.

    Not at once: on a machine of few cores they would take the time of what they ask.
    """
    load = Load()

    def one(_: int) -> None:
        answer = httpx.post(
            f"{world.service.url}/classify",
            files={"video": world.film},
            data={"labels": _LABELS},
            timeout=60,
        )
        load.note(answer)

    with ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(running(one, pause_seconds=0.3))
        yield load


@contextmanager
def running(work: Callable[[int], None], *, pause_seconds: float) -> Iterator[None]:
    """Do `work` again and again in a thread, whatever becomes of the connection."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(pause_seconds):
            with suppress(httpx.TransportError):  # it is being broken on purpose
                work(next(_numbers))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(90)


async def _create_database(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE DATABASE {_DATABASE}")
    finally:
        await connection.close()
