"""Traces of a running service, as a real collector gets them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.faults.load import until
from tests.otlp_collector import Collector, collector
from tests.redis_server import RedisServer
from tests.running_service import running_service

Film = Callable[..., bytes]

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_CALLER = "00f067aa0ba902b7"
_SECRET = "s3cr3tword"  # noqa: S105 - to be looked for
_NAMES = {
    *("POST /classify", "admission", "postgres", "redis MGET"),
    *("decode queue", "decode", "decode child", "encode batch", "encoder process"),
}
_NESTED = {"decode child": "decode", "encoder process": "encode batch"}


def _settings(small_store: Path, url: str) -> dict[str, str]:
    return {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "VTAG_DECODE_WORKERS": "1",
    }


def test_one_request_is_one_trace_through_all_processes(
    small_store: Path, state: Path, film: Film, redis_server: RedisServer
) -> None:
    """From the caller to decoder, encoder, Redis and Postgres; metrics and log lead to it."""
    with collector() as found:
        settings = _settings(small_store, found.url) | {"VTAG_REDIS_URL": redis_server.url}
        with running_service(state, environment=settings) as service:
            answer = httpx.post(
                f"{service.url}/classify",
                files={"video": film()},
                data={"labels": [f"a {_SECRET} label", "b"]},
                headers={
                    "traceparent": f"00-{_TRACE}-{_CALLER}-01",
                    "Idempotency-Key": _SECRET,  # kept in Postgres
                    "X-Request-ID": "traced-1",
                },
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
            until(lambda: set(found.trace(_TRACE)) >= _NAMES)
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            shown = httpx.get(f"{service.url}/metrics", headers=accept, timeout=60)
            assert shown.headers["content-type"].startswith("application/openmetrics-text")
            assert f'trace_id="{_TRACE}"' in shown.text
            assert shown.text.endswith("# EOF\n")
            plain = httpx.get(f"{service.url}/metrics", timeout=60)
            assert _TRACE not in plain.text
        lines = [json.loads(x) for x in service.log.read_text().splitlines() if x.startswith("{")]
        [line] = [x for x in lines if x.get("request_id") == "traced-1" and "endpoint" in x]
        assert line["trace_id"] == _TRACE
        _require_one_tree(found, model=answer.json()["model"])
    assert not any(_SECRET.encode() in body for body in found.raw)


def _require_one_tree(found: Collector, *, model: dict[str, Any]) -> None:
    spans = [span for span in found.spans if span.trace_id.hex() == _TRACE]
    by_id = {span.span_id: span for span in spans}
    [root] = [span for span in spans if span.parent_span_id not in by_id]
    assert (root.name, root.parent_span_id.hex()) == ("POST /classify", _CALLER)
    named = found.trace(_TRACE)
    for child, parent in _NESTED.items():
        assert by_id[named[child].parent_span_id].name == parent
    for span in spans:
        parent = by_id.get(span.parent_span_id, span)
        assert parent.start_time_unix_nano <= span.start_time_unix_nano + 1_000_000, span.name
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    about = {each.key: each.value for each in root.attributes}
    assert about["http.route"].string_value == "/classify"
    assert about["http.response.status_code"].int_value == 200
    assert about["vtag.lambda"].double_value == model["lambda"]
    assert about["vtag.revision"].string_value == model["space"].partition("/")[0]
    assert found.resources[0]["service.name"] == "vtag"
    assert {span.name for span in found.spans} & {"GET /readyz", "GET /metrics"} == set()


@pytest.mark.slow
def test_a_collector_that_is_away_costs_no_request(
    small_store: Path, state: Path, film: Film
) -> None:
    """Requests are answered and the service stops in time; only spans are lost."""
    settings = _settings(small_store, "http://127.0.0.1:9")
    with running_service(state, environment=settings) as service:
        for _ in range(3):
            answer = httpx.post(
                f"{service.url}/classify",
                files={"video": film()},
                data={"labels": "a"},
                timeout=60,
            )
            assert answer.status_code == 200
    assert service.process.returncode == 0


_OFF = """
import sys
import service.app, service.tracing
with service.tracing.span("nothing"):
    assert service.tracing.here() is service.tracing.exemplar() is None
# Redis' client looks for the library's metrics by itself, where it is installed.
unwanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
found = [name for name in sys.modules if name.startswith(unwanted)]
assert found == [], found
"""


def test_nothing_is_imported_for_who_does_not_trace() -> None:
    """The library of OpenTelemetry is for those who set the variable."""
    subprocess.run([sys.executable, "-c", _OFF], cwd=REPOSITORY, check=True)
