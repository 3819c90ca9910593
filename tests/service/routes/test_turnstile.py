"""Videos that there is no place for are refused at the door, before their bodies are read."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.app_in_process import running_app

pytestmark = pytest.mark.anyio


async def _never_sent() -> AsyncIterator[bytes]:
    raise AssertionError("the body was asked for")
    yield b""


async def test_a_refusal_does_not_touch_the_body() -> None:
    """It is counted under its path, says when to come back, and reads nothing of the upload."""
    headers = {"content-type": "multipart/form-data; boundary=b"}
    with tempfile.TemporaryDirectory(prefix="vtag-app-") as name, ExitStack() as places:
        async with running_app(Path(name), max_in_flight=1) as (client, app, _):
            places.enter_context(app.state.service.admission.enter("video"))
            for path in ("/classify", "/videos"):
                answer = await client.post(path, content=_never_sent(), headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, "saturated")
                assert answer.json()["instance"] == path
                assert int(answer.headers["retry-after"]) >= 1
            counted = (await client.get("/metrics")).text
    assert 'vtag_requests_total{endpoint="/classify",outcome="5xx"} 1.0' in counted
    assert 'vtag_rejected_total{reason="queue_full"} 2.0' in counted


async def test_the_wait_that_a_client_allows_counts_at_the_door() -> None:
    """`Prefer: wait` shorter than the predicted wait is refused at once; a longer one is not."""
    with tempfile.TemporaryDirectory(prefix="vtag-app-") as name, ExitStack() as places:
        async with running_app(Path(name)) as (client, app, _):
            admission = app.state.service.admission
            admission.watch(lambda _: 30.0)
            places.enter_context(admission.enter("video"))
            headers = {"content-type": "multipart/form-data; boundary=b", "prefer": "wait=10"}
            answer = await client.post("/classify", content=_never_sent(), headers=headers)
            assert (answer.status_code, answer.json()["limit"]) == (503, 10.0)
            admission.watch(lambda _: 3000.0)
            headers["prefer"] = "wait=999999"  # the service itself does not work that long
            answer = await client.post("/classify", content=_never_sent(), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "saturated")
            admission.watch(lambda _: 30.0)
            headers["prefer"] = "wait=60"
            answer = await client.post("/classify", content=b"--b--", headers=headers)
            assert answer.json()["code"] != "saturated"


async def test_who_may_send_a_body_is_not_refused_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of fifty that come at once two may send their videos; the others need not."""
    monkeypatch.setattr("service.admission._KEPT_SECONDS", 600.0)  # on however slow a machine
    film = b"film" * 1000
    with tempfile.TemporaryDirectory(prefix="vtag-app-") as name:
        async with running_app(Path(name), max_in_flight=2) as (client, _, tagger):

            async def send() -> int:
                form = {"files": {"video": film}, "data": {"labels": ["a"], "timeout_s": "1"}}
                return (await client.post("/classify", **form)).status_code  # type: ignore[arg-type]

            statuses = await asyncio.gather(*(send() for _ in range(50)))
            counted = (await client.get("/metrics")).text
            assert tagger.began.is_set()
    assert sorted(statuses) == [503] * 48 + [504] * 2
    assert f"vtag_upload_bytes_total {2.0 * len(film)}" in counted
