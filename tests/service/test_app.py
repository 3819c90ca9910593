"""The application in one process: what its parts raise, and what clients see of it."""

import asyncio
import errno
import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.deadline import DeadlineExceededError
from service.decode.crew import NotRunningError
from service.encode.residents import StaleWeightsError
from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.index.video_index import (
    IndexSetupError,
    IndexUnavailableError,
)
from service.videoclip.errors import NoFrames, VideoTooLong
from tests.service.app_in_process import ScriptedIndex, running_app

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder() -> Any:
    """A folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vtag-app-") as name:
        yield Path(name)


def _form() -> dict[str, Any]:
    return {"files": {"video": b"film"}, "data": {"labels": ["a", "b"]}}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoFrames("Nothing."), 422, "no_frames"),
        (VideoTooLong("Long.", limit=10, actual=20), 422, "video_too_long"),
        (EncoderUnavailableError("x"), 503, "encoder_unavailable"),
        (EncoderError("libsecret.so: 0xdeadbeef"), 500, "internal_error"),
        (StaleWeightsError("x"), 503, "encoder_unavailable"),
        (DeadlineExceededError("x"), 504, "deadline_exceeded"),
        (IndexUnavailableError(), 503, "index_unavailable"),
        (NotRunningError("x"), 503, "draining"),
        (OSError(errno.EMFILE, "Too many open files: /secret"), 503, "saturated"),
        (OSError(errno.EACCES, "Permission denied: /secret"), 500, "internal_error"),
        (RuntimeError("/home/me/secret: 0xdeadbeef"), 500, "internal_error"),
    ],
)
async def test_what_parts_raise_becomes_a_problem(
    folder: Path, error: Exception, status: int, code: str
) -> None:
    """Each kind of failure has its status; words of libraries stay in the log."""
    async with running_app(folder, error=error) as (client, _, __):
        answer = await client.post("/classify", **_form())
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert "secret" not in answer.text
        assert "0x" not in answer.text
        assert ("retry-after" in answer.headers) == (status in (503, 504))
        assert list((folder / "data" / "spool").iterdir()) == []


async def test_until_everything_runs_the_answer_is_503(folder: Path) -> None:
    """Live at once; ready when the last component is; work is refused with a hint meanwhile."""
    index = ScriptedIndex()
    index.gate.clear()
    async with running_app(folder, index=index, ready=False) as (client, app, _):
        async with asyncio.timeout(60):
            while not (await client.get("/readyz")).json()["components"]:
                await asyncio.sleep(0.01)
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["components"]) == (503, {"index": "starting"})
        started = await client.get("/startupz")
        assert (started.status_code, started.json()["code"]) == (503, "not_ready")
        refused = await client.post("/classify", **_form())
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"]
        index.gate.set()
        await app.state.progress.finished.wait()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/startupz")).json() == {"status": "started"}


async def test_a_failed_start_is_told_and_undone(folder: Path) -> None:
    """The reason is kept for the launcher, and the service never gets ready."""
    index = ScriptedIndex(setup=IndexSetupError("VTAG_DATABASE_URL: no"))
    async with running_app(folder, index=index) as (client, app, _):
        assert app.state.progress.failure == "VTAG_DATABASE_URL: no"
        assert (await client.get("/startupz")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503


async def test_an_index_that_is_away_makes_the_service_unready(folder: Path) -> None:
    """Readiness names it, liveness and metrics stay, and searches are told to come back."""
    async with running_app(folder, index=ScriptedIndex(away=True)) as (client, _, __):
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["components"]["index"]) == (503, "down")
        tags = await client.get("/readyz", params={"for": "tagging"})
        assert (tags.status_code, tags.json()["components"]["index"]) == (200, "down")
        assert (await client.get("/readyz", params={"for": "fun"})).status_code == 422
        assert (await client.get("/healthz")).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'vtag_component_up{component="index"} 0.0' in metrics
        assert "vtag_ready 0.0" in metrics
        answer = await client.post("/search", json={"query": {"embedding": [1.0] * 8}})
        assert (answer.status_code, answer.json()["code"]) == (503, "index_unavailable")


async def test_a_scrape_asks_how_components_do(folder: Path) -> None:
    """Whoever asks for metrics alone sees what readiness would say, and what the disk has."""
    index = ScriptedIndex()
    async with running_app(folder, index=index) as (client, _, __):
        metrics = (await client.get("/metrics")).text
        assert 'vtag_component_up{component="index"} 1.0' in metrics
        assert 'vtag_component_degraded{component="spool"} 0.0' in metrics
        assert "vtag_ready 1.0" in metrics
        assert 'vtag_spool_bytes{kind="free"}' in metrics
        index.away = True
        assert "vtag_ready 0.0" in (await client.get("/metrics")).text


async def test_a_scrape_does_not_wait_for_an_index_that_does_not_answer(folder: Path) -> None:
    """It is down, and everything else is told within the second that scrapers give."""
    index = ScriptedIndex()
    async with running_app(folder, index=index) as (client, _, __):
        index.gate.clear()
        async with asyncio.timeout(60):
            metrics = (await client.get("/metrics")).text
        assert 'vtag_component_up{component="index"} 0.0' in metrics
        index.gate.set()


async def test_requests_count_under_the_template_of_their_path(folder: Path) -> None:
    """The documents too; what is not ours shares one name, whatever it is called."""
    async with running_app(folder) as (client, _, __):
        for path in ("/docs", "/openapi.json", "/problems/no-such", "/a", "/b"):
            await client.get(path)
        metrics = (await client.get("/metrics")).text
    for endpoint, outcome, count in (
        ("/docs", "2xx", 1),
        ("/openapi.json", "2xx", 1),
        ("/problems/{slug}", "4xx", 1),
        ("unmatched", "4xx", 2),
    ):
        line = f'vtag_requests_total{{endpoint="{endpoint}",outcome="{outcome}"}} {count}.0'
        assert line in metrics


async def test_lambda_works_while_the_index_is_away(folder: Path) -> None:
    """What it could tell about the index is null; reading and changing lambda go on."""
    async with running_app(folder, index=ScriptedIndex(away=True)) as (client, _, __):
        changed = await client.put("/lambda", json={"lambda": 0.25})
        assert changed.status_code == 200
        assert changed.json()["warnings"] == []
        found = await client.get("/lambda")
        assert (found.status_code, found.json()["lambda"]) == (200, 0.25)
        assert found.json()["per_index"] is None


async def test_a_lambda_that_cannot_be_kept_is_served_with_a_warning(folder: Path) -> None:
    """The change is real, so it is no error; that a restart forgets it is said."""
    async with running_app(folder) as (client, _, __):
        (folder / "data" / ".lambda.json.new").mkdir()
        changed = await client.put("/lambda", json={"lambda": 0.25})
        assert (changed.status_code, changed.json()["lambda"]) == (200, 0.25)
        assert [item["code"] for item in changed.json()["warnings"]] == ["lambda_not_kept"]


async def test_bodies_of_json_are_let_in_as_uploads_are(folder: Path) -> None:
    """While as many bodies arrive as may, the next is refused; then there is room again."""
    first, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"lambda": '
        first.set()
        await go_on.wait()
        yield b"0.5}"

    async with running_app(folder, max_uploads=1) as (client, _, __):
        json = {"content-type": "application/json"}
        slow = asyncio.create_task(client.put("/lambda", content=slowly(), headers=json))
        await first.wait()
        for path in ("/search", "/embeddings"):
            refused = await client.post(path, json={"query": "a"})
            assert (refused.status_code, refused.json()["code"]) == (503, "saturated")
            assert refused.headers["retry-after"]
        go_on.set()
        assert (await slow).status_code == 200
        assert (await client.put("/lambda", json={"lambda": 0.5})).status_code == 200


async def test_bodies_without_a_video_are_small(folder: Path) -> None:
    """Collections and lambda take one MiB of JSON; only what may hold videos takes more."""
    large = {"query": "a" * 2**20}
    async with running_app(folder) as (client, _, __):
        for method, path in (("POST", "/collections"), ("PUT", "/lambda")):
            refused = await client.request(method, path, json=large)
            assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
            assert refused.json()["limit"] == 2**20
        for path in ("/embeddings", "/search"):
            assert (await client.post(path, json=large)).status_code == 422


async def test_a_damaged_artefact_does_not_hide_the_others(folder: Path) -> None:
    """It is listed as broken with the reason; what is said of the served one is measured."""
    async with running_app(folder) as (client, _, tagger):
        broken = folder / "store" / "another" / "0123456789ab"
        broken.mkdir(parents=True)
        answer = await client.get("/models")
        assert answer.status_code == 200
        bad, good = answer.json()["data"]
        assert (bad["id"], bad["revision"], bad["status"]) == ("another", broken.name, "broken")
        assert bad["reason"].startswith("another/0123456789ab/manifest.json: expected")
        assert (good["revision"], good["status"]) == (tagger.manifest.revision, "served")
        assert (good["dtype"], good["runtime"], good["device"]) == ("F32", "onnx", "cpu")


async def test_draining_refuses_work_and_readiness(folder: Path) -> None:
    """Load balancers look elsewhere first; nothing is refused until they had time to."""
    async with running_app(folder, error=NoFrames("x")) as (client, app, _):
        app.state.service.drain()
        readiness = await client.get("/readyz")
        assert readiness.status_code == 503
        assert readiness.json()["components"]["intake"] == "draining"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/classify", **_form())).json()["code"] == "no_frames"
        app.state.service.close()
        answer = await client.post("/classify", **_form())
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")


async def test_a_deadline_ends_the_work(folder: Path) -> None:
    """timeout_s bounds a request; what ran for it is cancelled before the answer is given."""
    async with running_app(folder) as (client, _, tagger):
        form = _form()
        form["data"]["timeout_s"] = "0.05"
        answer = await client.post("/classify", **form)
        assert (answer.status_code, answer.json()["limit"]) == (504, 0.05)
        assert tagger.ended.is_set()


@pytest.mark.parametrize(
    ("setting", "fields", "headers", "words", "param", "limit"),
    [
        (0.05, {}, {}, "VTAG_REQUEST_TIMEOUT_SECONDS", None, 0.05),
        (0.05, {"timeout_s": "9"}, {"Prefer": "wait=9"}, "VTAG_REQUEST_TIMEOUT", None, 0.05),
        (60.0, {"timeout_s": "0.05"}, {"Prefer": "wait=9"}, "timeout_s", "timeout_s", 0.05),
        (60.0, {"timeout_s": "50"}, {"Prefer": "wait=1"}, "Prefer: wait", "Prefer", 1.0),
    ],
)
async def test_what_limited_the_time_is_named(
    folder: Path,
    setting: float,
    fields: dict[str, str],
    headers: dict[str, str],
    words: str,
    param: str | None,
    limit: float,
) -> None:
    """The least of the three that may say how long, so that its owner knows what to change."""
    async with running_app(folder, request_timeout_seconds=setting) as (client, _, __):
        form = _form()
        form["data"] |= fields
        answer = await client.post("/classify", **form, headers=headers)
        body = answer.json()
        assert (answer.status_code, body["code"]) == (504, "deadline_exceeded")
        assert words in body["detail"]
        assert (body.get("param"), body["limit"]) == (param, limit)
        metrics = (await client.get("/metrics")).text
        assert 'vtag_problems_total{code="deadline_exceeded"} 1.0' in metrics


async def test_requests_are_logged_by_template_with_their_id(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per request; neither the path's variable part nor labels appear."""
    caplog.set_level(logging.INFO, logger="vtag.http")
    async with running_app(folder, error=NoFrames("x")) as (client, _, __):
        await client.post("/classify", **_form())
        await client.get("/nothing-of-ours")
    lines = [record.getMessage() for record in caplog.records if record.name == "vtag.http"]
    assert lines == ["POST /classify 422", "GET unmatched 404"]
