"""Long videos tagged by a job: the answer of ``/classify``, gone on with after kill -9."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.labelled_videos import wait
from tests.file_server import FileServer, file_server
from tests.running_service import running_service
from tests.service.processes import kill_all

Film = Callable[..., bytes]

LABELS = ["a red square", "a green circle", "rain"]


@pytest.fixture(scope="module")
def files(film: Film) -> Iterator[FileServer]:
    """A server with one film."""
    with file_server({"film.mp4": film(seconds=6)}) as server:
        yield server


@pytest.fixture(scope="module")
def settings(small_store: Path, files: FileServer) -> dict[str, str]:
    """Of a service that may ask this server."""
    return {"VTAG_MODEL_STORE": str(small_store), "VTAG_URL_INTERNAL": files.host}


def _send(client: httpx.Client, **options: Any) -> str:
    answer = client.post("/classify/long", json={"labels": LABELS, **options})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    """What two answers about one video share."""
    names = ("video", "tags", "scores", "none_score", "model", "warnings", "segments")
    return {name: answer[name] for name in names}


@pytest.mark.parametrize(
    "segments",
    [
        {"length": 0.5, "overlap": 0.25},
        {"mode": "shots"},
        {"length": 0.5, "merge": True, "min_score": 0.2},
    ],
)
def test_the_result_is_the_answer_of_classify(
    client: httpx.Client, film: Film, segments: dict[str, Any]
) -> None:
    """For a video of the index and for one that is sent."""
    options = {"labels": LABELS, "segments": segments, "scores": "independent"}
    stored = client.post("/videos", files={"video": film(seconds=6)}).json()
    kept = {"type": "video_id", "video_id": stored["id"]}
    whole = client.post("/classify", json={**options, "video": kept})
    assert whole.status_code == 200, whole.text
    job = wait(client, _send(client, **options, video=kept))
    assert job["status"] == "succeeded", job["error"]
    assert _said(job["result"]) == _said(whole.json())
    assert (job["request"]["source"], job["request"]["where"]) == ("video_id", stored["id"])
    fields = {"labels": LABELS, "scores": "independent", "segments": httpx_json(segments)}
    sent = client.post("/classify/long", files={"video": film(seconds=6)}, data=fields)
    job = wait(client, sent.json()["id"])
    assert _said(job["result"]) == _said(whole.json())


@pytest.mark.slow
def test_a_job_fetches_its_video_itself(
    state: Path, settings: dict[str, str], files: FileServer, film: Film
) -> None:
    """From a URL, once; the answer is that for the same bytes."""
    with (
        running_service(state, environment=settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        options = {"labels": LABELS, "segments": '{"length": 0.5}'}
        whole = client.post("/classify", files={"video": film(seconds=6)}, data=options).json()
        video = {"type": "url", "url": files.url("film.mp4")}
        job = wait(client, _send(client, video=video, segments={"length": 0.5}))
    assert job["status"] == "succeeded", job["error"]
    assert _said(job["result"]) == _said(whole)
    assert files.asked == {"film.mp4": 1}


def httpx_json(value: object) -> str:
    """JSON for a field of a form."""
    return httpx.Request("POST", "http://x", json=value).content.decode()


@pytest.mark.parametrize(
    ("options", "status", "code", "param"),
    [
        ({}, 422, "missing_video", "video"),
        ({"video": {"type": "url"}}, 422, "missing_video", "video.url"),
        ({"video": {"type": "url", "url": "http://10.1.1.1"}}, 422, "url_not_allowed", "video.url"),
        ({"video": {"type": "video_id"}}, 422, "missing_video", "video.video_id"),
        ({"video": {"type": "video_id", "video_id": "x"}}, 404, "video_not_found",
         "video.video_id"),
        ({"video": {"type": "base64", "data": "%"}}, 422, "invalid_base64", "video.data"),
        ({"timeout_s": 3.0}, 422, "invalid_request", None),
        ({"segments": {"merge": True}, "video": {"type": "url", "url": "x"}}, 422,
         "invalid_segments", "segments.merge"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_at_once(
    client: httpx.Client, options: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    """Before there is a job."""
    answer = client.post("/classify/long", json={"labels": LABELS, **options})
    found = answer.json()
    assert (answer.status_code, found["code"], found.get("param")) == (status, code, param), found


def test_what_the_video_is_to_blame_for_fails_the_job(client: httpx.Client) -> None:
    """With the code that ``/classify`` gives; nothing is tried again."""
    answer = client.post("/classify/long", files={"video": b"no film"}, data={"labels": LABELS})
    job = wait(client, answer.json()["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "unsupported_container")
    assert job["attempts"] == 1


@pytest.mark.slow
def test_after_the_death_of_everything_it_goes_on_with_the_next_segment(
    state: Path, settings: dict[str, str], film: Film
) -> None:
    """kill -9 on the way: what was done is not done again, and the result is the same."""
    data = {"labels": LABELS, "segments": '{"length": 0.1}', "top_k": "2"}
    data_of_film = film(seconds=60)  # longer than a quick machine needs between two looks
    with running_service(state, environment=settings) as service:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            files = {"video": data_of_film}
            whole = wait(client, client.post("/classify/long", files=files, data=data).json()["id"])
            job_id = client.post("/classify/long", files=files, data=data).json()["id"]
            while (job := client.get(f"/jobs/{job_id}").json())["progress"]["done"] < 20:
                assert job["status"] in ("queued", "running"), job
        parent = psutil.Process(service.process.pid)
        kill_all([parent, *parent.children(recursive=True)])
        service.process.wait()
    with (
        running_service(state, environment=settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        begun = client.get(f"/jobs/{job_id}").json()
        assert begun["progress"]["done"] >= 20
        job = wait(client, job_id)
    assert (job["status"], job["attempts"]) == ("succeeded", 2), job["error"]
    assert len(job["result"]["segments"]) == 600
    assert _said(job["result"]) == _said(whole["result"])
