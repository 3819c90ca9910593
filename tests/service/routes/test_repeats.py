"""Idempotency-Key: asked twice, done once."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import StreamingResponse

from service.routes.body import video_body
from service.routes.parts import Ready
from service.routes.repeats import digest_of, recognise, spoil
from service.schemas import ClassifyRequest
from service.videoclip.errors import NoFrames
from tests.service.app_in_process import running_app

pytestmark = pytest.mark.anyio


@pytest.fixture
async def counting() -> AsyncIterator[tuple[Any, list[str]]]:
    """A client of an application with a route that counts how often it did its work."""
    with tempfile.TemporaryDirectory(prefix="vtag-repeats-") as name:
        async with running_app(Path(name)) as (client, app, _):
            done: list[str] = []

            @app.post("/work")
            async def work(request: Request, _: Ready, stream: bool = False) -> Any:
                body = await request.body()
                if (digest := digest_of(request)) is not None:
                    digest.update(body)
                recognise(request)
                if body.startswith(b"slow"):
                    await asyncio.sleep(0.3)
                done.append(body.decode())
                if body == b"bad":
                    raise NoFrames("Nothing.")
                if stream:
                    if body == b"spoilt":
                        spoil(request)
                    parts = [b"%d" % len(done), b"x" * (2**20 if body == b"large" else 1)]
                    return StreamingResponse(iter(parts), media_type="text/event-stream")
                return {"times": len(done)}

            yield client, done


async def test_the_same_request_gets_the_same_answer(counting: tuple[Any, list[str]]) -> None:
    """Quoted or not, the key finds the answer; without a key work is done each time."""
    client, done = counting
    first = await client.post("/work", content="a", headers={"Idempotency-Key": "k-1"})
    again = await client.post("/work", content="a", headers={"Idempotency-Key": '"k-1"'})
    assert first.json() == again.json() == {"times": 1}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    other = await client.post("/work", content="a", headers={"Idempotency-Key": "k-2"})
    assert other.json() == {"times": 2}
    assert [(await client.post("/work", content="a")).json()["times"] for _ in "ab"] == [3, 4]
    assert done == ["a"] * 4


async def test_another_request_under_the_key_is_422(counting: tuple[Any, list[str]]) -> None:
    """Another body or another query: refused, and the kept answer stays."""
    client, done = counting
    headers = {"Idempotency-Key": "k"}
    await client.post("/work", content="a", headers=headers)
    for path, body in (("/work", "b"), ("/work?stream=false", "a")):
        refused = await client.post(path, content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert (await client.post("/work", content="a", headers=headers)).json() == {"times": 1}
    assert done == ["a"]


async def test_a_request_that_is_being_worked_on_is_409(counting: tuple[Any, list[str]]) -> None:
    """With a time to come back; then the answer is there."""
    client, done = counting
    headers = {"Idempotency-Key": "k"}
    posts = [client.post("/work", content="slow", headers=headers) for _ in range(4)]
    answers = await asyncio.gather(*posts)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["code"] == "request_in_progress"
    assert refused.headers["retry-after"] == "1"
    again = await client.post("/work", content="slow", headers=headers)
    assert again.json() == {"times": 1}
    assert done == ["slow"]


async def test_only_success_is_kept(counting: tuple[Any, list[str]]) -> None:
    """An error may be tried again under its key, and so may a stream that ended in one."""
    client, done = counting
    asked = [("/work", "bad"), ("/work?stream=true", "spoilt"), ("/work?stream=true", "large")]
    for path, body in asked:
        for _ in range(2):
            headers = {"Idempotency-Key": body}
            answer = await client.post(path, content=body, headers=headers)
            assert "idempotent-replayed" not in answer.headers
    assert done == ["bad", "bad", "spoilt", "spoilt", "large", "large"]


async def test_a_stream_is_kept_as_it_was_sent(counting: tuple[Any, list[str]]) -> None:
    """All its parts in one; asked for in another form it is another request."""
    client, done = counting
    headers = {"Idempotency-Key": "k", "Accept": "text/event-stream"}
    first = await client.post("/work?stream=true", content="a", headers=headers)
    again = await client.post("/work?stream=true", content="a", headers=headers)
    assert first.text == again.text == "1x"
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"].startswith("text/event-stream")
    headers["Accept"] = "application/json"
    other = await client.post("/work?stream=true", content="a", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert done == ["a"]


async def test_a_repeat_needs_no_place(tmp_path: Path) -> None:
    """An answer that is kept is given while the lane of videos is full; new work is refused."""
    async with running_app(tmp_path, max_in_flight=2) as (client, app, _):
        done: list[int] = []

        async def take(request: Request, parts: Ready) -> dict[str, int]:
            async with video_body(request, parts, ClassifyRequest) as (_, video):
                with parts.admission.enter("video"):
                    done.append(video.size_bytes)
            return {"times": len(done)}

        app.router.routes.insert(0, APIRoute("/classify", take, methods=["POST"]))
        form: dict[str, Any] = {"files": {"video": b"12345"}, "data": {"labels": "a"}}
        kept, new = {"Idempotency-Key": "k"}, {"Idempotency-Key": "new"}
        first = await client.post("/classify", headers=kept, **form)
        assert (first.status_code, first.json()) == (200, {"times": 1})
        with ExitStack() as places:
            for _ in range(2):
                places.enter_context(app.state.progress.parts.admission.enter("video"))
            again = await client.post("/classify", headers=kept, **form)
            assert (again.status_code, again.json()) == (200, {"times": 1})
            assert again.headers["idempotent-replayed"] == "true"
            for headers in ({}, new):
                refused = await client.post("/classify", headers=headers, **form)
                assert (refused.status_code, refused.json()["code"]) == (503, "saturated")
        assert (await client.post("/classify", headers=new, **form)).json() == {"times": 2}
        assert done == [5, 5]


@pytest.mark.parametrize(
    "headers",
    [[("Idempotency-Key", "")], [("Idempotency-Key", "a b")], [("Idempotency-Key", "x" * 256)],
     [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], [("Idempotency-Key", '"a"b"')]],
)  # fmt: skip
async def test_a_key_that_is_none_is_400(
    counting: tuple[Any, list[str]], headers: list[tuple[str, str]]
) -> None:
    """Silently ignoring it would do the work twice."""
    client, done = counting
    answer = await client.post("/work", content="a", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert done == []
