"""A job is watched by events and tells of its end by webhook, over a restart too."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import draw_set, pack, send, wait
from tests.receiver import SECRET, Receiver, receiver
from tests.running_service import running_service


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A few labelled videos."""
    return pack(draw_set(tmp_path_factory.mktemp("drawn"), names=("source",), count=4))


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def settings(hooks: Receiver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a service that may tell that receiver, and no other."""
    secrets = tmp_path_factory.mktemp("secrets") / "webhooks"
    secrets.write_text(SECRET)
    return {
        "VTAG_MODEL_STORE": str(REPOSITORY / "model_store"),
        "VTAG_WEBHOOK_SECRET_FILE": str(secrets),
        "VTAG_WEBHOOK_INTERNAL": hooks.host,
        "VTAG_WEBHOOK_RETRY_SECONDS": "0.5",
    }


def events(client: httpx.Client, job_id: str) -> list[tuple[str, Any]]:
    """All events of a job until its stream ends."""
    found: list[tuple[str, Any]] = []
    accept = {"Accept": "text/event-stream"}
    with client.stream("GET", f"/jobs/{job_id}", headers=accept, timeout=120) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                found.append((name, json.loads(line.removeprefix("data:"))))
    return found


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_job_is_watched_and_tells_of_its_end(
    settings: dict[str, str], hooks: Receiver, archive: bytes
) -> None:
    """Events lead to `done`; the webhook comes signed; what fails is tried after a restart."""
    with state_folder() as state:
        with (
            running_service(state, environment=settings) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
        ):
            sent = send(client, archive, lambdas=[0, 1], webhook={"url": hooks.url}).json()
            assert (sent["webhook"]["status"], sent["webhook"]["url"]) == ("waiting", hooks.url)
            assert "webhook" not in sent["request"]
            seen = events(client, sent["id"])
            assert {name for name, _ in seen[:-1]} <= {"job"}
            assert (seen[-1][0], seen[-1][1]["status"]) == ("done", "succeeded")
            assert seen[-1][1]["result"] == wait(client, sent["id"])["result"]
            assert events(client, sent["id"]) == [seen[-1]]
            delivered = until(client, sent["id"], "delivered")
            assert hooks.event()["data"]["id"] == sent["id"]
            assert hooks.headers[-1]["webhook-id"] == delivered["id"]
            hooks.statuses = [503]
            again = send(
                client,
                archive,
                lambdas=[1],
                webhook={"url": hooks.url, "events": ["job.succeeded"]},
            ).json()
            wait(client, again["id"])
            until(client, again["id"], "pending", attempts=1)
        hooks.statuses = [200]
        with (
            running_service(state, environment=settings) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
        ):
            late = until(client, again["id"], "delivered")
            assert late["attempts"] > 1
            assert hooks.event()["data"]["id"] == again["id"]
            refused = send(client, archive, webhook={"url": "https://127.0.0.1/"})
            assert (refused.status_code, refused.json()["code"]) == (422, "webhook_not_allowed")
            wrong = send(client, archive, webhook={"url": hooks.url, "events": []})
            assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
        assert "token=" not in service.log.read_text()  # of the receiver's URL


def until(client: httpx.Client, job_id: str, status: str, *, attempts: int = 0) -> dict[str, Any]:
    """The webhook of a job once it is so far."""
    end = time.monotonic() + 60
    while True:
        webhook: dict[str, Any] = client.get(f"/jobs/{job_id}").json()["webhook"]
        if webhook["status"] == status and webhook["attempts"] >= attempts:
            return webhook
        assert time.monotonic() < end, webhook
        time.sleep(0.1)


def test_a_service_does_not_start_with_a_file_that_holds_no_secret(tmp_path: Path) -> None:
    """One line for the operator, not a service without webhooks."""
    (tmp_path / "secrets").write_text("nothing\n")
    settings = {"VTAG_WEBHOOK_SECRET_FILE": str(tmp_path / "secrets")}
    with (
        pytest.raises(RuntimeError, match="VTAG_WEBHOOK_SECRET_FILE"),
        running_service(tmp_path, environment=settings),
    ):
        pass
