"""Everything that goes wrong is a problem, the framework's own errors too."""

import httpx
import pytest


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/classify", 405),
        ("POST", "/classify/", 404),
        ("DELETE", "/healthz", 405),
        ("GET", "/videos?limit=0", 422),
        ("GET", "/videos?cursor=forged", 400),
        ("GET", "/videos/vid_unknown", 404),
        ("GET", "/videos/vid_01M7XZ5BPKAZQPE537D9MKNJA9", 404),
        ("DELETE", "/videos/../../etc/passwd", 404),
        ("POST", "/classify", 415),
        ("GET", "/%00", 404),
    ],
)
def test_errors_of_the_framework_are_problems(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """404, 405, 415 and 422 have the same shape as ours."""
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


def test_a_request_id_is_kept_if_it_is_harmless(client: httpx.Client) -> None:
    """The client's id comes back; one that could break a log does not."""
    assert (
        client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    )
    answer = client.get("/healthz", headers={"X-Request-ID": "a b\tc"})
    assert answer.headers["x-request-id"].startswith("req_")


def test_every_problem_type_leads_to_its_description(client: httpx.Client) -> None:
    """The `type` of a problem is a path of this service."""
    body = client.get("/nothing").json()
    assert client.get(body["type"]).json()["code"] == body["code"]
    assert len(client.get("/problems").json()["data"]) > 30
    assert client.get("/problems/nonsense").status_code == 404


def test_the_openapi_document_holds_what_it_refers_to(client: httpx.Client) -> None:
    """Every reference resolves, and every route of the contract is there."""
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    text = client.get("/openapi.json").text
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas
    assert "$defs" not in text
    routes = "classify videos videos/{video_id} search embeddings lambda models healthz readyz"
    routes += " metrics version lambda/evaluate jobs jobs/{job_id}"
    assert {f"/{route}" for route in routes.split()} <= set(document["paths"])
    posted = document["paths"]["/classify"]["post"]["parameters"]
    assert "Idempotency-Key" in {parameter["name"] for parameter in posted}
    assert client.get("/docs").status_code == 200


def test_operations_routes_answer(client: httpx.Client) -> None:
    """Liveness, readiness with components, versions, models, metrics."""
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["components"] == dict.fromkeys(("index", "encoder", "decoder", "spool"), "ok")
    assert ready["devices"] == {"0": "ok"}
    assert client.get("/version").json()["ffmpeg"]
    [model] = client.get("/models").json()["data"]
    assert (model["id"], model["status"]) == ("small", "served")
    metrics = client.get("/metrics").text
    assert 'vtag_requests_total{endpoint="/readyz",outcome="2xx"}' in metrics
    assert "vtag_model_info{" in metrics
    assert 'vtag_decode_workers{state="alive"}' in metrics
    assert 'vtag_worker_restarts_total{worker="encoder"} 0.0' in metrics
