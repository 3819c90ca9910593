"""Many videos indexed by one job: each outcome told, nothing twice, gone on with after kill -9."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import wait
from tests.file_server import FileServer, file_server
from tests.running_service import RunningService, running_service
from tests.service.processes import kill_all

Film = Callable[..., bytes]

MOST = 12


@pytest.fixture(scope="module")
def files(film: Film) -> Iterator[FileServer]:
    """A server with a dozen films, one of them twice, and what is no film."""
    films = {f"{number}.mp4": film(seconds=1 + number / 5) for number in range(MOST)}
    with file_server({**films, "again.mp4": films["0.mp4"], "text.mp4": b"no film"}) as server:
        yield server


@pytest.fixture(scope="module")
def settings(small_store: Path, files: FileServer) -> dict[str, str]:
    """Of a service that may ask this server."""
    return {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_SEGMENT_SECONDS": "1",
        "VTAG_URL_INTERNAL": files.host,
    }


@pytest.fixture(scope="module")
def fetching(settings: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of it."""
    with (
        state_folder() as folder,
        running_service(folder, environment=settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as found,
    ):
        yield found


def _send(client: httpx.Client, videos: list[dict[str, Any]], **options: Any) -> str:
    """Begin a job; its id."""
    answer = client.post("/videos/batch", json={"videos": videos, **options})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


@pytest.mark.slow
def test_each_video_has_an_outcome_of_its_own(fetching: httpx.Client, files: FileServer) -> None:
    """Indexed, there already, or failed with its problem; asked again, nothing is fetched."""
    client = fetching
    names = ["0.mp4", "1.mp4", "again.mp4", "text.mp4", "none.mp4"]
    videos = [
        {"url": files.url(name), "external_id": name, "metadata": {"n": number}}
        for number, name in enumerate(names)
    ]
    job = wait(client, _send(client, videos, priority=3))
    assert (job["status"], job["kind"], job["priority"]) == ("succeeded", "index_videos", 3), job
    result = job["result"]
    assert {name: result[name] for name in ("indexed", "duplicate", "failed")} == {
        "indexed": 2,
        "duplicate": 1,
        "failed": 2,
    }
    first, second, same, text, none = result["videos"]
    assert (first["outcome"], first["external_id"]) == ("indexed", "0.mp4")
    stored = client.get(f"/videos/{second['id']}").json()
    assert (stored["external_id"], stored["metadata"]) == ("1.mp4", {"n": 1})
    assert stored["segments"] == second["segments"] > 0
    assert (same["outcome"], same["id"]) == ("duplicate", first["id"])
    assert (text["outcome"], text["error"]["code"]) == ("failed", "unsupported_container")
    assert (none["outcome"], none["error"]["code"]) == ("failed", "fetch_failed")
    assert job["progress"]["fraction"] == 1
    assert "videos" not in job["request"]
    before = files.asked["1.mp4"]
    again = wait(client, _send(client, videos[1:2]))["result"]
    assert (again["duplicate"], again["videos"][0]["id"]) == (1, second["id"])
    assert files.asked["1.mp4"] == before


def test_videos_that_are_kept_can_be_indexed_elsewhere(client: httpx.Client, film: Film) -> None:
    """By their ids, into another collection and at another λ, without being sent again."""
    client.post("/collections", json={"name": "copies"}).raise_for_status()
    sent = client.post("/videos", files={"video": film(seconds=1.7)}).json()
    job_id = _send(client, [{"video_id": sent["id"]}], collection="copies", **{"lambda": 0.25})
    [copy] = wait(client, job_id)["result"]["videos"]
    stored = client.get(f"/videos/{copy['id']}").json()
    client.delete("/collections/copies").raise_for_status()
    assert (stored["collection"], stored["sha256"]) == ("copies", sent["sha256"])
    assert stored["spaces"][0].endswith("/0.25")
    assert stored["id"] != sent["id"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"videos": []}, 422, "invalid_request", "videos"),
        ({"videos": [{}]}, 422, "invalid_request", "videos.0"),
        ({"videos": [{"url": "x", "video_id": "y"}]}, 422, "invalid_request", "videos.0"),
        ({"videos": [{"url": "http://10.0.0.1/x"}]}, 422, "url_not_allowed", "videos.0.url"),
        ({"videos": [{"video_id": "none"}]}, 404, "video_not_found", "videos.0.video_id"),
        (
            {"videos": [{"video_id": f"vid_{'0' * 26}"}] * 2001},
            422,
            "too_many_videos",
            "videos",
        ),
        (
            {"videos": [{"video_id": f"vid_{'0' * 26}"}], "collection": "none"},
            404,
            "collection_not_found",
            "collection",
        ),
        ({"videos": [{"url": "x"}], "priority": 101}, 422, "invalid_request", "priority"),
    ],
)
def test_batches_that_cannot_be_taken(
    client: httpx.Client, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    """Refused before there is a job, with the field."""
    answer = client.post("/videos/batch", json=body)
    found = answer.json()
    assert (answer.status_code, found["code"], found["param"]) == (status, code, param), found


def test_a_batch_that_is_sent_again_under_its_key_is_one_job(client: httpx.Client) -> None:
    """The answer is given again; another body under the key is refused."""
    key = {"Idempotency-Key": "batch-1"}
    body = {"videos": [{"video_id": f"vid_{'0' * 26}"}]}
    one, two = (client.post("/videos/batch", json=body, headers=key).json() for _ in range(2))
    assert one["id"] == two["id"]
    other = client.post("/videos/batch", json={**body, "priority": 1}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    [gone] = wait(client, one["id"])["result"]["videos"]
    assert (gone["outcome"], gone["error"]["code"]) == ("failed", "video_not_found")


@contextmanager
def _halfway(files: FileServer, count: int) -> Iterator[None]:
    """Inside, the server answers so many requests."""
    files.asked.clear()
    files.limit = count
    try:
        yield
    finally:
        files.answer_all()


def _until_asked(files: FileServer, count: int) -> None:
    with files.changed:
        assert files.changed.wait_for(lambda: files.asked.total() >= count, timeout=120)


def _kill(service: RunningService) -> None:
    parent = psutil.Process(service.process.pid)
    kill_all([parent, *parent.children(recursive=True)])
    service.process.wait()


def _check(client: httpx.Client, job: dict[str, Any], files: FileServer) -> None:
    """All twelve are there, once, and those that were done were not fetched again."""
    assert (job["status"], job["attempts"]) == ("succeeded", 2), job
    assert [video["outcome"] for video in job["result"]["videos"]] == ["indexed"] * MOST
    listed = client.get("/videos", params={"limit": 200}).json()["data"]
    assert len(listed) == len({video["sha256"] for video in listed}) == MOST
    assert [files.asked[f"{number}.mp4"] for number in range(5)] == [1] * 5
    assert files.asked.total() == MOST + 1


@pytest.mark.slow
def test_after_the_death_of_everything_the_job_goes_on(
    state: Path, settings: dict[str, str], files: FileServer
) -> None:
    """kill -9 while the sixth is fetched: those before it are neither lost nor fetched again."""
    videos = [{"url": files.url(f"{number}.mp4")} for number in range(MOST)]
    with _halfway(files, 5), running_service(state, environment=settings) as service:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            job_id = _send(client, videos)
        _until_asked(files, 6)
        _kill(service)
    with (
        running_service(state, environment=settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        _check(client, wait(client, job_id), files)


@pytest.mark.slow
def test_another_service_takes_the_job_of_a_dead_one_over(
    settings: dict[str, str], files: FileServer, postgres: str
) -> None:
    """Two on one Postgres; the one that works is killed: the other ends the job within a minute."""
    videos = [{"url": files.url(f"{number}.mp4")} for number in range(MOST)]
    environment = {**settings, "VTAG_DATABASE_URL": postgres}
    with (
        state_folder() as here,
        state_folder() as there,
        running_service(there, environment=environment) as other,
        running_service(here, environment=environment) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        with _halfway(files, 5):
            job_id = _send(client, videos)
            _until_asked(files, 6)
            dead, alive = (service, other) if _runs(service) else (other, service)
            _kill(dead)
        killed = time.monotonic()
        with httpx.Client(base_url=alive.url, timeout=60) as survivor:
            job = wait(survivor, job_id)
            assert time.monotonic() - killed < 60
            _check(survivor, job, files)


def _runs(service: RunningService) -> bool:
    text = httpx.get(f"{service.url}/metrics", timeout=60).text
    return 'vtag_jobs{state="running"} 1.0' in text
