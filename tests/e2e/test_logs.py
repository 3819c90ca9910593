"""The log of a running service: what operators need of each request, nothing in confidence."""

import base64
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.api_keys import new_key
from tests.faults.conftest import workers_of
from tests.faults.load import until
from tests.running_service import RunningService, running_service

Film = Callable[..., bytes]

_SECRET = "s3cr3tword"  # noqa: S105 - to be looked for


def _lines(service: RunningService) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")
    ]


def _line(service: RunningService, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def is_there() -> bool:  # it is written after the answer was sent
        found[:] = [
            line
            for line in _lines(service)
            if line.get("request_id") == request_id and "endpoint" in line
        ]
        return bool(found)

    until(is_there)
    [line] = found
    return line


def test_a_request_is_one_line_with_model_and_stages(
    service: RunningService, client: httpx.Client, film: Film
) -> None:
    """Its id, endpoint, status, revision and lambda, and how long each stage took."""
    answer = client.post(
        "/classify",
        files={"video": film()},
        data={"labels": ["a", "b"], "lambda": "0.25"},
        headers={"X-Request-ID": "classified-1"},
    )
    assert answer.status_code == 200, answer.text
    model = answer.json()["model"]
    line = _line(service, "classified-1")
    assert (line["method"], line["endpoint"], line["status"]) == ("POST", "/classify", 200)
    assert line["lambda"] == model["lambda"] == 0.25
    assert line["revision"] == model["space"].partition("/")[0]
    assert {"receive", "wait", "decode", "encode", "text", "score"} <= set(line["stages_ms"])
    assert line["milliseconds"] >= line["stages_ms"]["decode"]
    client.get("/videos/vid_unknown", headers={"X-Request-ID": "unknown-1"})
    line = _line(service, "unknown-1")
    assert (line["endpoint"], line["status"]) == ("/videos/{video_id}", 404)
    assert "lambda" not in line


def test_nothing_that_was_sent_in_confidence_is_logged(
    small_store: Path, state: Path, film: Film
) -> None:
    """Labels, queries, names, keys, signatures of URLs; with and without errors, at any level."""
    key, lines = new_key("me")
    (state / "keys.toml").write_text(lines)
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_API_KEYS_FILE": str(state / "keys.toml"),
        "VTAG_URL_HOSTS": "videos.invalid",
        "VTAG_DECODE_WORKERS": "1",
        "VTAG_LOG_LEVEL": "debug",
    }
    data, label = film(), f"a {_SECRET} label"
    url = f"https://videos.invalid/{_SECRET}.mp4?X-Amz-Signature={_SECRET}"
    with (
        running_service(state, environment=settings) as service,
        httpx.Client(
            base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client,
    ):
        _send_secrets(client, data, label, url)
        # An error that nobody foresaw: a worker that is killed while it decodes or before.
        for each in workers_of(service, "decode"):
            each.send_signal(signal.SIGKILL)
            psutil.wait_procs([each], timeout=60)
        client.post("/classify", files={"video": data}, data={"labels": label})
        last = client.get("/version", headers={"X-Request-ID": "last-1"})
        assert last.status_code == 200
        _line(service, "last-1")
    text = service.log.read_text()
    assert _SECRET not in text
    assert key not in text
    assert base64.b64encode(_SECRET.encode()).decode()[:12] not in text
    assert sum("/classify" in line for line in text.splitlines()) >= 4


def _send_secrets(client: httpx.Client, data: bytes, label: str, url: str) -> None:
    labels = {"labels": [label, "b"]}
    named = {"video": (f"{_SECRET}.mp4", data)}
    assert client.post("/classify", files=named, data=labels).status_code == 200
    assert client.post("/classify", files={"video": label.encode()}, data=labels).is_error
    assert client.post("/classify", json={"video": {"url": url}, "labels": [label]}).is_error
    assert client.post("/classify", json={"labels": [label], _SECRET: label}).is_error
    stored = client.post(
        "/videos",
        files=named,
        data={"external_id": label, "metadata": json.dumps({_SECRET: label})},
        headers={"Idempotency-Key": _SECRET},
    )
    assert stored.status_code == 201, stored.text
    assert client.post("/search", json={"query": label}).status_code == 200
    assert client.post("/search", json={"query": label, "collection": _SECRET}).is_error
    assert client.post("/embeddings", json={"input": label}).status_code == 200
    assert client.get("/videos", params={"external_id": label, "token": _SECRET}).is_success
    assert client.get(f"/{_SECRET}", params={"token": _SECRET}).status_code == 404
    strangers = {"Authorization": f"Bearer {_SECRET}", "X-API-Key": _SECRET, "Cookie": _SECRET}
    assert client.get("/version", headers=strangers).status_code == 401
    assert client.get("/version", headers={"X-Request-ID": f"{_SECRET} x"}).status_code == 200
