"""Jobs over HTTP: sent, watched, cancelled, interrupted by death, bounded; nothing stays behind."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import draw_set, pack, send, wait, wait_until_gone
from tests.running_service import RunningService, running_service
from tests.service.processes import kill_all
from training.data.annotations import LabelledVideo

STORE = REPOSITORY / "model_store"
FINE = [round(step / 20, 4) for step in range(21)]
COARSE = FINE[::2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledVideo]:
    """A few videos of two sets."""
    folder = tmp_path_factory.mktemp("drawn")
    return draw_set(folder, names=("source", "unseen-attributes"), count=8)


@pytest.fixture(scope="module")
def archive(videos: list[LabelledVideo]) -> bytes:
    """They with their labels."""
    return pack(videos)


def _settings(**more: str) -> dict[str, str]:
    return {"VTAG_MODEL_STORE": str(STORE), **more}


def _until(client: httpx.Client, job_id: str, fraction: float) -> dict[str, Any]:
    """The job as soon as it is so far."""
    end = time.monotonic() + 120
    while True:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        if job["progress"]["fraction"] >= fraction:
            return job
        assert time.monotonic() < end, job
        time.sleep(0.02)


def _material(state: Path, job_id: str) -> Path:
    return state / "data" / "jobs" / job_id


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_survives_the_death_of_everything(state: Path, archive: bytes) -> None:
    """kill -9 of all processes half way: the next start goes on, and the result is the same."""
    groups = _settings(VTAG_EVALUATION_CACHE_BYTES="400000")  # of ten videos
    with running_service(state, environment=groups) as service:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            whole = wait(client, send(client, archive, lambdas=FINE).json()["id"])
            job_id = send(client, archive, lambdas=FINE).json()["id"]
            before = _until(client, job_id, 0.2)
            assert before["status"] == "running"
            assert before["progress"]["eta_s"] is not None
        parent = psutil.Process(service.process.pid)
        kill_all([parent, *parent.children(recursive=True)])
        service.process.wait()
    assert _material(state, job_id).is_dir()
    (_material(state, "job_left")).mkdir()  # of an upload that was cut off
    with (
        running_service(state, environment=groups) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        after = wait(client, job_id)
        assert (after["status"], after["attempts"]) == ("succeeded", 2)
        assert after["result"] == whole["result"]
        wait_until_gone(_material(state, job_id))
        assert [path.name for path in (state / "data" / "jobs").iterdir()] == ["owner"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_orderly_stop_interrupts_and_the_next_start_goes_on(
    state: Path, archive: bytes, postgres: str
) -> None:
    """Marked interrupted, its pieces kept; going on does not count as another attempt."""
    environment = _settings(VTAG_DATABASE_URL=postgres)
    with (
        running_service(state, environment=environment) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        job_id = send(client, archive, lambdas=FINE).json()["id"]
        _until(client, job_id, 0.2)
    with state_folder() as other, running_service(other, environment=environment) as service:
        # Another service with the same database sees it, and cannot run it: its disk is elsewhere.
        seen = httpx.get(f"{service.url}/jobs/{job_id}", timeout=60).json()
        assert (seen["status"], seen["attempts"]) == ("interrupted", 0)
        assert 0.2 <= seen["progress"]["fraction"] < 1
    with running_service(state, environment=environment) as service:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            after = wait(client, job_id)
        assert (after["status"], after["attempts"]) == ("succeeded", 1)


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """A service that runs one job and lets two wait."""
    with (
        state_folder() as folder,
        running_service(folder, environment=_settings(VTAG_MAX_WAITING_JOBS="2")) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def test_jobs_wait_are_bounded_and_can_be_cancelled(
    client: httpx.Client, service: RunningService, archive: bytes
) -> None:
    """One runs, two wait, the next is refused; cancelled ones leave nothing and keep their row."""
    ids = [send(client, archive, lambdas=FINE).json()["id"] for _ in range(3)]
    refused = send(client, archive)
    assert (refused.status_code, refused.json()["code"]) == (503, "saturated")
    assert refused.headers["retry-after"]
    listed = client.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in listed["data"]] == [ids[2], ids[1]]
    assert {job["status"] for job in listed["data"]} == {"queued"}
    rest = client.get("/jobs", params={"cursor": listed["next_cursor"]}).json()
    assert rest["data"][0]["id"] == ids[0]
    assert rest["data"][0]["request"]["clip_weights"] == FINE
    assert "videos" not in rest["data"][0]["request"]
    _until(client, ids[0], 0.1)
    for job_id in (ids[1], ids[0], ids[2]):
        job = client.delete(f"/jobs/{job_id}")
        assert (job.status_code, job.json()["status"]) == (200, "cancelled")
        assert client.delete(f"/jobs/{job_id}").json()["status"] == "cancelled"
        wait_until_gone(_material(service.log.parent, job_id))
    cancelled = client.get("/jobs", params={"status": "cancelled", "kind": "evaluate_lambda"})
    assert {job["id"] for job in cancelled.json()["data"]} == set(ids)
    done = wait(client, send(client, archive, lambdas=[1]).json()["id"])
    assert client.get(f"/jobs/{done['id']}").headers.get("retry-after") is None
    late = client.delete(f"/jobs/{done['id']}")
    assert (late.status_code, late.json()["code"]) == (409, "job_ended")
    metrics = client.get("/metrics").text
    assert 'vtag_jobs_ended_total{kind="evaluate_lambda",outcome="cancelled"} 3.0' in metrics
    assert 'vtag_jobs_ended_total{kind="evaluate_lambda",outcome="succeeded"} 1.0' in metrics
    assert 'vtag_background_encoder_calls_total{work="trial"}' in metrics


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("job_id", ["job_01M7XZ5BPKAZQPE537D9MKNJA9", "vid_x", "%00", "owner"])
def test_a_job_that_is_none_is_not_found(client: httpx.Client, method: str, job_id: str) -> None:
    """Whatever the id looks like."""
    answer = client.request(method, f"/jobs/{job_id}")
    assert (answer.status_code, answer.json()["code"]) in ((404, "job_not_found"),)


def test_lists_of_jobs_take_no_nonsense(client: httpx.Client) -> None:
    """Unknown states and forged cursors are refused."""
    assert client.get("/jobs?status=sleeping").status_code == 422
    assert client.get("/jobs?cursor=forged").json()["code"] == "invalid_cursor"


@pytest.mark.timeout(300)
def test_another_lambda_may_be_served_while_one_is_measured(
    client: httpx.Client, archive: bytes
) -> None:
    """PUT /lambda works at once; the evaluation builds again what it lost and ends the same."""
    expected = wait(client, send(client, archive, lambdas=COARSE).json()["id"])["result"]
    default = client.get("/lambda").json()["default"]
    job_id = send(client, archive, lambdas=COARSE).json()["id"]
    for value in (0.33, 0.66, default):
        time.sleep(0.3)
        assert client.put("/lambda", json={"lambda": value}).json()["lambda"] == value
    job = wait(client, job_id)
    assert (job["status"], job["result"]) == ("succeeded", expected), job["error"]
    assert client.get("/lambda").json()["lambda"] == default


@pytest.mark.timeout(300)
def test_the_death_of_the_encoder_does_not_end_the_job(
    client: httpx.Client, service: RunningService, archive: bytes
) -> None:
    """It is started again, the weights are built again, the curve is whole."""
    job_id = send(client, archive, lambdas=FINE).json()["id"]
    _until(client, job_id, 0.1)
    children = psutil.Process(service.process.pid).children()
    [encoder] = [c for c in children if "service.encode.worker" in c.cmdline()]
    encoder.kill()
    job = wait(client, job_id)
    assert job["status"] == "succeeded", job["error"]
    assert len(job["result"]["points"]) == len(FINE)
    assert job["attempts"] == 1
