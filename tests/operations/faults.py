"""Seven ways to break a running service, with what each must show."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import psutil

from tests.faults.conftest import workers_of
from tests.faults.load import until
from tests.operations.world import RESERVE_BYTES, World, crowd

_LAMBDA = 0.9
_BROKEN = "badbadbadbad"  # as a revision has to look


@dataclass(frozen=True)
class Fault:
    """One way.

    Attributes:
        name: for people.
        alert: what fires.
        happens: breaks the world; the body runs while it is broken, afterwards it is whole.
        series: labels of the series of the alert's panel that shows it.
        shows: whether a value of that series does.
        needs_disk: whether the world must have a small disk of its own.
    """

    name: str
    alert: str
    happens: Callable[[World], AbstractContextManager[None]]
    series: Mapping[str, str]
    shows: Callable[[float], bool]
    needs_disk: bool = False


@contextmanager
def overload(world: World) -> Iterator[None]:
    """Eight clients that hardly pause, for two places."""
    with crowd(world, clients=8) as load:
        until(lambda: load.statuses[503] > 0)
        yield


@contextmanager
def decoders_killed(world: World) -> Iterator[None]:
    """SIGKILL to every decode worker, and to those that come in their places."""
    killed: set[int] = set()
    while len(killed) < 9:
        for each in workers_of(world.service, "decode"):
            with contextlib.suppress(psutil.NoSuchProcess):
                if each.pid not in killed:
                    each.kill()
                    killed.add(each.pid)
        time.sleep(0.05)
    yield


@contextmanager
def redis_down(world: World) -> Iterator[None]:
    """SIGKILL to Redis."""
    world.redis.kill()
    yield
    world.redis.restart()


@contextmanager
def postgres_down(world: World) -> Iterator[None]:
    """Postgres is ended, and started again."""
    world.postgres.end()
    yield
    world.postgres.start()


@contextmanager
def bad_artefact(world: World) -> Iterator[None]:
    """A revision with a damaged file is activated."""
    [good] = [path for path in (world.store / "demo").iterdir() if path.is_dir()]
    bad = good.with_name(_BROKEN)
    shutil.copytree(good, bad)
    weights = bad / "weights_tuned.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    manifest = (bad / "manifest.json").read_text().replace(good.name, bad.name)
    (bad / "manifest.json").write_text(manifest)
    answer = httpx.post(f"{world.service.url}/models/demo/{_BROKEN}/activate", timeout=120)
    if answer.is_success:
        raise RuntimeError(f"a damaged artefact was activated: {answer.text}")
    yield
    shutil.rmtree(bad)


@contextmanager
def lambda_switched(world: World) -> Iterator[None]:
    """Another λ is served, and then the one before."""
    before = _put_lambda(world, _LAMBDA)
    yield
    _put_lambda(world, before)


@contextmanager
def disk_full(world: World) -> Iterator[None]:
    """The disk of the uploads is filled by somebody else."""
    hog = world.spool / "hog"
    with hog.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"\0" * 65536)
    yield
    hog.unlink()


def _put_lambda(world: World, value: float) -> float:
    url = f"{world.service.url}/lambda"
    before = float(httpx.get(url, timeout=60).json()["lambda"])
    httpx.put(url, json={"lambda": value}, timeout=60).raise_for_status()
    return before


FAULTS = (
    Fault("overload", "VtagOverloaded", overload, {"reason": "queue_full"}, lambda v: v > 0),
    Fault(
        "decoders killed",
        "VtagDecodersKilled",
        decoders_killed,
        {"reason": "signal"},
        lambda v: v > 0,
    ),
    Fault("Redis down", "VtagRedisDown", redis_down, {}, lambda v: v == 0),
    Fault("Postgres down", "VtagIndexDown", postgres_down, {}, lambda v: v == 0),
    Fault(
        "bad artefact",
        "VtagActivationRefused",
        bad_artefact,
        {"outcome": "refused"},
        lambda v: v > 0,
    ),
    Fault("λ switched", "VtagLambdaChanged", lambda_switched, {}, lambda v: v == _LAMBDA),
    Fault(
        "disk full",
        "VtagSpoolFull",
        disk_full,
        {"kind": "free"},
        lambda v: v <= RESERVE_BYTES,
        needs_disk=True,
    ),
)
