"""The door: no route answers a stranger, whatever way the path is written."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from service.api_keys import new_key
from service.routes.gate import PUBLIC
from service.videoclip.errors import NoFrames
from tests.service.app_in_process import ScriptedTagger, running_app

pytestmark = pytest.mark.anyio

_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO")


@asynccontextmanager
async def _guarded(
    quota: str = "", **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI, ScriptedTagger, dict[str, str]]]:
    """An application with two keys: ``user`` with a quota, and ``ops`` of an administrator."""
    user, user_lines = new_key("user")
    ops, ops_lines = new_key("ops", admin=True)
    with tempfile.TemporaryDirectory(prefix="vtag-gate-") as name:
        folder = Path(name)
        (folder / "keys.toml").write_text(f"{user_lines}\n{quota}\n{ops_lines}\n")
        keys = folder / "keys.toml"
        async with running_app(folder, api_keys_file=keys, **options) as (client, app, tagger):
            yield client, app, tagger, {"user": user, "ops": ops}


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _spellings(path: str) -> set[str]:
    """Ways to write a path that some server or proxy takes for the same."""
    inner = path.lstrip("/")
    first = inner[:1]
    return {
        path, f"{path}/", f"/{path}", f"//{path}", f"/.{path}", f"/x/..{path}", f"{path}/.",
        f"{path}?a=b", f"{path};a=b", f"{path}%2f", f"{path}%00", f"{path}%20", f"/%2e{path}",
        f"/x/%2e%2e{path}", f"/%2f{inner}", f"/v1{path}", f"/healthz/..{path}",
        f"/healthz/%2e%2e{path}", f"/healthz{path}", f"/healthz;{path}", f"/{inner.upper()}",
        f"/%{ord(first):02x}{inner[1:]}" if first else "/%2f",
    }  # fmt: skip


async def _ask(
    app: FastAPI, method: str, target: str, *, headers: dict[str, str]
) -> tuple[int, dict[str, str]]:
    """Ask for a target as it stands, as uvicorn would: clients tidy it up first."""
    raw, _, query = target.encode().partition(b"?")
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return pytest.fail("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(
        {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(raw), "raw_path": raw, "query_string": query,
            "root_path": "", "state": {}, "server": ("vtag", 80), "client": ("127.0.0.1", 1),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        },
        receive,
        send,
    )  # fmt: skip
    start = sent[0]
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}


async def test_no_route_answers_a_stranger_however_it_is_written() -> None:
    """Every route, documentation too, with every method, without a key and with wrong ones: 401."""
    async with _guarded() as (client, app, _, keys):
        paths = {str(found.path) for found in iter_route_contexts(app.routes)}
        assert {"/docs", "/openapi.json", "/classify", "/metrics", "/jobs/{job_id}"} <= paths
        targets = {
            spelling
            for path in (*sorted(paths - PUBLIC), "/", "", "*", "/nothing")
            for spelling in _spellings(path)
        } - PUBLIC
        user = keys["user"]
        wrong = [{}, _bearer("no"), _bearer(user[:-1]), {"X-API-Key": ""}]
        wrong += [{"Authorization": f"Basic {user}"}, {"Cookie": f"key={user}"}]
        count = 0
        for target in sorted(targets):
            for method in _METHODS:
                headers = wrong[count % len(wrong)]
                status, answer = await _ask(app, method, target, headers=headers)
                assert status == 401, (method, target, headers)
                count += 1
        assert answer["www-authenticate"] == 'Bearer realm="vtag"'
        assert answer["content-type"] == "application/problem+json"
        assert answer["x-request-id"]
        metrics = (await client.get("/metrics", headers=_bearer(user))).text
        assert f'vtag_rejected_total{{reason="auth"}} {float(count)}' in metrics


async def test_what_orchestrators_ask_needs_no_key() -> None:
    """Exactly three paths, and they tell nothing but the state of components."""
    assert {"/healthz", "/readyz", "/startupz"} == PUBLIC
    async with _guarded() as (client, _, __, ___):
        for path in PUBLIC:
            assert (await client.get(path)).status_code == 200
            assert (await client.post(path)).status_code == 405


async def test_a_key_opens_everything_but_what_changes_what_is_served() -> None:
    """Both headers work; PUT /lambda wants an administrator's key."""
    async with _guarded(error=NoFrames("x")) as (client, _, __, keys):
        for headers in (_bearer(keys["user"]), {"X-API-Key": keys["user"]}):
            for path in ("/docs", "/openapi.json", "/models", "/lambda", "/version"):
                assert (await client.get(path, headers=headers)).status_code == 200
        change = {"lambda": 0.25}
        refused = await client.put("/lambda", json=change, headers=_bearer(keys["user"]))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        done = await client.put("/lambda", json=change, headers=_bearer(keys["ops"]))
        assert done.status_code == 200


async def test_every_route_that_changes_what_is_served_is_for_administrators() -> None:
    """A new one cannot be forgotten: only these may change something for a plain key."""
    for_everybody = {
        ("POST", "/classify"), ("POST", "/videos"), ("DELETE", "/videos/{video_id}"),
        ("POST", "/search"), ("POST", "/embeddings"), ("POST", "/lambda/evaluate"),
        ("DELETE", "/jobs/{job_id}"), ("PATCH", "/videos/{video_id}"), ("POST", "/collections"),
        ("POST", "/classify/long"), ("POST", "/videos/batch"),
    }  # fmt: skip
    async with _guarded() as (client, app, _, keys):
        routes = [
            (method, str(found.path))
            for found in iter_route_contexts(app.routes)
            for method in (found.methods or ())
        ]
        changing = {(m, path) for m, path in routes if m not in ("GET", "HEAD", "OPTIONS")}
        assert for_everybody <= changing
        for method, path in sorted(changing - for_everybody):
            target = path.replace("{", "").replace("}", "")
            answer = await client.request(method, target, headers=_bearer(keys["user"]))
            assert answer.status_code == 403, (method, path)


async def test_a_stranger_is_refused_before_the_body_is_read() -> None:
    """Not one byte of an upload is asked for."""
    async with _guarded() as (client, _, __, ___):

        async def body() -> AsyncIterator[bytes]:
            pytest.fail("the body was read")
            yield b""

        answer = await client.post("/classify", content=body())
        assert answer.status_code == 401


async def test_beyond_its_rate_a_key_gets_429_and_others_do_not() -> None:
    """RateLimit fields on every answer, Retry-After on the refusal, nobody else notices."""
    async with _guarded("requests_per_minute = 3") as (client, _, __, keys):
        answers = [await client.get("/version", headers=_bearer(keys["user"])) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[0].headers["ratelimit-policy"] == '"default";q=3;w=60'
        assert answers[0].headers["ratelimit"] == '"default";r=2;t=20'
        assert answers[3].json()["code"] == "quota_exceeded"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 25
        other = await client.get("/version", headers=_bearer(keys["ops"]))
        assert other.status_code == 200
        assert "ratelimit" not in other.headers
        metrics = (await client.get("/metrics", headers=_bearer(keys["ops"]))).text
        assert 'vtag_rejected_total{reason="quota"} 2.0' in metrics


async def test_a_key_has_so_many_requests_at_once() -> None:
    """The next one is 429 until one of them has ended, also by the client's leaving."""
    form: dict[str, Any] = {"files": {"video": b"film"}, "data": {"labels": "a"}}
    async with _guarded("concurrent = 1") as (client, _, tagger, keys):
        headers = _bearer(keys["user"])
        work = asyncio.create_task(client.post("/classify", headers=headers, **form))
        await tagger.began.wait()
        refused = await client.get("/version", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_at_once")
        assert refused.headers["retry-after"]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert (await client.get("/version", headers=headers)).status_code == 200


async def test_one_key_leaves_places_to_another() -> None:
    """Whoever sends ever more is told so while a place is free, and the other key gets it."""
    form: dict[str, Any] = {"files": {"video": b"x"}, "data": {"labels": "a"}}
    async with _guarded(max_in_flight=4) as (client, app, _, keys):
        admission = app.state.progress.parts.admission
        work = []
        for name, after in (("user", 1), ("user", 2), ("user", 3), ("ops", 4)):
            if after == 4:
                refused = await client.post("/classify", headers=_bearer(keys["user"]), **form)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many_at_once")
                assert refused.headers["retry-after"]
            sending = client.post("/classify", headers=_bearer(keys[name]), **form)
            work.append(asyncio.create_task(sending))
            while admission.in_flight("video") < after:
                await asyncio.sleep(0.01)
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def test_keys_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The name of the caller is in the line of its request; neither a good nor a bad key is."""
    caplog.set_level("DEBUG")
    async with _guarded() as (client, _, __, keys):
        await client.get("/version", headers=_bearer(keys["user"]))
        await client.get("/version", headers=_bearer("guessed-key"))
    lines = [record for record in caplog.records if record.name == "vtag.http"]
    assert [getattr(record, "caller", None) for record in lines] == ["user", None]
    assert not any(key in str(vars(record)) for key in (*keys.values(), "guessed-key")
                   for record in lines)  # fmt: skip


async def test_a_websocket_is_refused() -> None:
    """There are none, and none may come to be unguarded."""
    async with _guarded() as (_, app, __, ___):
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/classify", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
