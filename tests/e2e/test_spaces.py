"""Spaces of collections over HTTP: shown, made, activated, removed, and refused with reasons."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import make_client
from tests.e2e.labelled_videos import wait
from tests.receiver import SECRET, Receiver, receiver
from tests.service.small_artefact import publish, weights

Film = Callable[..., bytes]


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    """A receiver of webhooks on this machine."""
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store of two artefacts, and the one that is not served."""
    root = tmp_path_factory.mktemp("two") / "model_store"
    publish(root, text_tower_tuned=True)
    other = publish(root, name="second", clip=weights(7), tuned=weights(8), activate=False)
    return root, f"second/{other.revision}"


@pytest.fixture(scope="module")
def running(
    second: tuple[Path, str], hooks: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a service that keeps videos and may tell that receiver."""
    secrets = tmp_path_factory.mktemp("secrets") / "webhooks"
    secrets.write_text(SECRET)
    settings = {
        "VTAG_MODEL_STORE": str(second[0]),
        "VTAG_SEGMENT_SECONDS": "1",
        "VTAG_STORE_WATCH_SECONDS": "0",
        "VTAG_WEBHOOK_SECRET_FILE": str(secrets),
        "VTAG_WEBHOOK_INTERNAL": hooks.host,
    }
    with make_client(settings) as client:
        yield client


@pytest.fixture
def client(running: httpx.Client, second: tuple[Path, str], film: Film) -> Iterator[httpx.Client]:
    """The first artefact at λ 0.5, and one video in a collection of its own."""
    revision = next(path.name for path in (second[0] / "small").iterdir())
    running.post(f"/models/small/{revision}/activate", timeout=90)
    running.put("/lambda", json={"lambda": 0.5}).raise_for_status()
    running.post("/collections", json={"name": "cats"}).raise_for_status()
    _index(running, film())
    yield running
    running.delete("/collections/cats").raise_for_status()


def _index(client: httpx.Client, film: bytes, **fields: object) -> dict[str, Any]:
    answer = client.post("/videos", files={"video": film}, data={"collection": "cats", **fields})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _spaces(client: httpx.Client) -> dict[float, tuple[int, bool, bool]]:
    shown = client.get("/collections/cats").json()["spaces"]
    return {each["lambda"]: (each["videos"], each["active"], each["complete"]) for each in shown}


def _searched(client: httpx.Client, **more: object) -> httpx.Response:
    return client.post("/search", json={"query": "a dog", "collection": "cats", **more})


def test_a_collection_is_embedded_again_by_a_job(
    client: httpx.Client, hooks: Receiver, film: Film
) -> None:
    """202 and a job that tells of its end; then the new space is searched, and the old is there."""
    old = _searched(client).json()["index"]["space"]
    asked = {"lambda": 0.25, "webhook": {"url": hooks.url}}
    sent = client.post("/collections/cats/reindex", json=asked)
    assert sent.status_code == 202, sent.text
    assert sent.headers["location"] == f"/jobs/{sent.json()['id']}"
    job = wait(client, sent.json()["id"])
    assert (job["kind"], job["status"], job["progress"]["fraction"]) == ("reindex", "succeeded", 1)
    assert job["request"]["collections"] == ["cats"]
    [report] = job["result"]["collections"]
    assert (report["previous"], report["switched"]) == (old, True)
    _until(lambda: bool(hooks.bodies))
    assert hooks.event()["data"]["kind"] == "reindex"
    assert _spaces(client) == {0.5: (1, False, True), 0.25: (1, True, True)}
    assert _searched(client).json()["index"]["lambda"] == 0.25
    stored = _index(client, film(seconds=1.4))  # without a λ: where searches look
    assert [space.rpartition("/")[2] for space in stored["spaces"]] == ["0.25"]
    assert _spaces(client) == {0.5: (1, False, False), 0.25: (2, True, True)}
    for weight, codes in ((0.25, []), (0.5, ["videos_in_other_spaces"])):
        warnings = _searched(client, **{"lambda": weight}).json()["warnings"]
        assert [each["code"] for each in warnings] == codes
    assert warnings[0]["detail"].startswith("At least 1 videos of the collection are not in small@")


def test_several_lambdas_side_by_side_and_back(client: httpx.Client) -> None:
    """Without a switch it has one more to search with; activate leads there, and back."""
    sent = client.post("/collections/cats/reindex", json={"lambda": 0.75, "activate": False})
    assert wait(client, sent.json()["id"])["status"] == "succeeded"
    assert _spaces(client) == {0.5: (1, True, True), 0.75: (1, False, True)}
    assert _searched(client, **{"lambda": 0.75}).json()["index"]["lambda"] == 0.75
    switched = client.post("/collections/cats/activate", json={"lambda": 0.75})
    assert switched.status_code == 200
    assert switched.json()["active_space"].endswith("/0.75")
    assert _searched(client).json()["index"]["lambda"] == 0.75
    for each in switched.json()["spaces"]:
        path = f"/collections/cats/spaces/{each['space']}"
        if each["active"]:
            refused = client.delete(path)
            assert (refused.status_code, refused.json()["code"]) == (409, "space_in_use")
            back = each["space"]
        else:
            assert client.delete(path).status_code == 204
            gone = path
    assert (client.delete(gone).status_code, client.delete(gone).json()["code"]) == (
        404,
        "space_not_found",
    )
    assert _spaces(client) == {0.75: (1, True, True)}
    assert client.post("/collections/cats/activate", json={"space": back}).status_code == 200


def test_what_is_not_complete_is_not_activated(client: httpx.Client, film: Film) -> None:
    """409 with what is there: nothing of the space, or not of all videos."""
    _index(client, film(seconds=1.4), **{"lambda": 0.9})
    absent = client.post("/collections/cats/activate", json={"lambda": 0.1}).json()
    assert (absent["status"], absent["code"]) == (409, "index_lambda_mismatch")
    partial = client.post("/collections/cats/activate", json={"lambda": 0.9}).json()
    assert (partial["status"], partial["code"], partial["actual"]) == (409, "space_incomplete", 1)
    for body in (absent, partial):
        assert {each["lambda"]: each["videos"] for each in body["spaces"]} == {0.5: 1, 0.9: 1}
    for path in ("activate", "reindex"):
        answer = client.post(f"/collections/none/{path}", json={"lambda": 0.5})
        assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")
    for body in ({}, {"lambda": 0.5, "space": "x"}):
        assert client.post("/collections/cats/activate", json=body).status_code == 422
    both = client.post("/collections/cats/reindex", json={"keep": False, "activate": False})
    assert both.status_code == 422
    assert client.delete("/collections/cats/spaces/no/such/space").status_code == 404


def test_another_artefact_takes_the_collections_along(
    client: httpx.Client, second: tuple[Path, str]
) -> None:
    """Activated with reindex: 409 that names what is there until all is embedded again."""
    old = _searched(client).json()["index"]["space"]
    answer = client.post(f"/models/{second[1]}/activate", json={"reindex": True}, timeout=90)
    assert answer.status_code == 200, answer.text
    [job_id] = answer.json()["jobs"]
    meanwhile = _searched(client)
    if meanwhile.status_code != 200:  # it may have been quick
        body = meanwhile.json()
        assert (meanwhile.status_code, body["code"]) == (409, "index_lambda_mismatch")
        assert [each["id"] for each in body["spaces"]] == [old]
    assert wait(client, job_id)["status"] == "succeeded"
    found = _searched(client).json()
    assert found["index"]["space"] == answer.json()["space"]
    assert len(found["data"]) == 1


def test_one_job_at_a_time_takes_collections_elsewhere(client: httpx.Client) -> None:
    """Another target is refused and changes nothing; the same is no new job; cancelled, it may.

    With keep false the job lasts for the time of a request after the switch.
    """
    first = client.put("/lambda", json={"lambda": 0.8, "reindex": {"keep": False}}).json()
    [job_id] = first["jobs"]
    _until(lambda: client.get(f"/jobs/{job_id}").json()["progress"]["stage"] == "dropping")
    for other in (
        client.put("/lambda", json={"lambda": 0.9, "reindex": True}),
        client.post("/collections/cats/reindex", json={"lambda": 0.9}),
    ):
        assert (other.status_code, other.json()["code"]) == (409, "reindex_running")
        assert (other.json()["job"], other.json()["actual"]) == (job_id, first["space"])
    assert client.get("/lambda").json()["lambda"] == 0.8
    assert client.put("/lambda", json={"lambda": 0.8, "reindex": True}).json()["jobs"] == []
    assert client.delete(f"/jobs/{job_id}").json()["status"] == "cancelled"
    assert _spaces(client) == {0.5: (1, False, True), 0.8: (1, True, True)}
    [job_id] = client.put("/lambda", json={"lambda": 0.9, "reindex": True}).json()["jobs"]
    assert wait(client, job_id)["status"] == "succeeded"
    assert _searched(client).json()["index"]["lambda"] == 0.9


def test_a_change_that_is_refused_leaves_collections_as_they_were(client: httpx.Client) -> None:
    """One that follows what is served follows on."""
    answer = client.put(
        "/lambda", json={"lambda": 0.8, "reindex": True}, headers={"If-Match": '"another"'}
    )
    assert answer.status_code == 412
    assert client.get("/collections/cats").json()["active_space"] is None


def _until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
