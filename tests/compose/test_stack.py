"""What `docker compose up` starts, as processes of this machine, answers real requests.

Grafana is not among them: there is no package of it here. Its boards and data source are checked in
tests/contracts.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from tests.compose.compose_file import read_compose
from tests.compose.processes import Stack, running_stack
from tests.compose.questions import QUERY, SAMPLES, ask, index_samples, search
from tests.faults.load import until

pytestmark = pytest.mark.slow

FILM = SAMPLES / "cross-growing.mp4"
LABELS = [QUERY, "a heart bouncing", "a star moving left"]
# What a password is made of when somebody sets one.
ENVIRONMENT = {"POSTGRES_PASSWORD": "aVery1Long2Word", "CPU_LIMIT": "1"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Redis, Postgres and the service, started in the order that the file wants."""
    with (
        tempfile.TemporaryDirectory(prefix="vtag-compose-") as folder,
        running_stack(read_compose(ENVIRONMENT), Path(folder)) as found,
    ):
        for name in found.document["services"]["vtag"]["depends_on"]:
            found.start(name)
        found.start("vtag")
        yield found


def result(url: str, query: str) -> list[object]:
    """What Prometheus has for a query at this moment."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=30)
    found: list[object] = answer.json()["data"]["result"]
    return found


def test_every_health_check_passes(stack: Stack) -> None:
    """The commands of the file, run as they stand, say that what is started is well."""
    for name in ("postgres", "redis", "vtag"):
        assert stack.check(name).returncode == 0


def test_videos_are_tagged_indexed_and_found(stack: Stack) -> None:
    """/classify, /videos and /search answer, through the Postgres and the Redis of the file."""
    answer = ask(stack, "/classify", files={"video": FILM.read_bytes()}, data={"labels": LABELS})
    tags = answer["tags"]
    assert isinstance(tags, list)
    assert tags[0]["label"] == LABELS[0]
    index_samples(stack)
    hits = search(stack)
    assert isinstance(hits, list)
    assert hits
    ready = ask(stack, "/readyz")["components"]
    assert isinstance(ready, dict)
    assert ready["redis"] == ready["index"] == ready["encoder"] == "ok"
    with redis.Redis(port=stack.translation.ports["redis", 6379]) as client:
        assert client.dbsize() > 0, "text embeddings are in the Redis of the file"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


def test_the_password_of_the_environment_is_needed(stack: Stack) -> None:
    """POSTGRES_PASSWORD reaches both sides; without it nobody comes in."""
    wrong = stack.settings("vtag")["VTAG_DATABASE_URL"].replace("aVery1Long2Word", "vtag")
    psql = stack.postgres_programs / "psql"
    for url, succeeds in ((wrong, False), (wrong.replace(":vtag@", ":aVery1Long2Word@"), True)):
        asked = stack.spawn(
            "psql", [psql, url, "-c", "SELECT count(*) FROM videos"], environment={}
        )
        assert (asked.wait(30) == 0) is succeeds


def test_children_are_given_no_secret(stack: Stack) -> None:
    """Neither the environment nor the command line of a process that decodes or encodes has one."""
    children = psutil.Process(stack.running["vtag"].pid).children(recursive=True)
    assert len(children) >= 2
    for child in children:
        seen = [*child.cmdline(), *child.environ().values()]
        assert not any(ENVIRONMENT["POSTGRES_PASSWORD"] in text for text in seen)


def test_stop_and_start_keep_what_was_indexed(stack: Stack) -> None:
    """Everything that counts is in the volumes, and stopping takes less than stop_grace_period."""
    index_samples(stack)
    before = search(stack)
    grace = float(stack.document["services"]["vtag"]["stop_grace_period"].removesuffix("s"))
    assert stack.stop("vtag") < grace
    stack.stop("postgres")
    stack.stop("redis")
    for name in ("postgres", "redis", "vtag"):
        stack.start(name)
    assert search(stack) == before


def test_prometheus_scrapes_the_service(stack: Stack) -> None:
    """Prometheus with its mounted configuration and rules finds the service and its metrics."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine (Debian: prometheus): its part is not tried")
    stack.start("prometheus")
    url = stack.url("prometheus", 9090)
    for query in ('up{job="vtag"} == 1', "vtag_requests_total > 0"):
        until(lambda asked=query: bool(result(url, asked)))  # type: ignore[misc]
    targets = httpx.get(f"{url}/api/v1/targets").json()["data"]["activeTargets"]
    assert {target["labels"]["job"] for target in targets} >= {"vtag", "prometheus"}


def test_a_health_check_fails_where_nothing_answers(stack: Stack) -> None:
    """A check that always passes would be none."""
    stack.stop("redis")
    assert stack.check("redis").returncode != 0
    stack.start("redis")
