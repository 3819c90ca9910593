"""A service whose vectors are in a Milvus that can go away."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import make_client, state_folder
from tests.faults.load import until
from tests.faults.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def server() -> Iterator[TcpProxy]:
    """A Milvus that speaks the protocol of a server, behind a network."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    with state_folder() as folder:
        running, database, port = start_server_in_thread(str(folder / "vectors.db"))
        proxy = TcpProxy(("127.0.0.1", port))
        try:
            yield proxy
        finally:
            proxy.close()
            running.stop(grace=2).wait()
            database.close()


def test_a_milvus_that_is_away_is_a_typed_503(
    small_store: Path, server: TcpProxy, film: Callable[..., bytes], tmp_path: Path
) -> None:
    """Readiness and metrics say so, searches and uploads too; all else goes on, and it heals."""
    token = tmp_path / "token"
    token.write_text("root:Milvus\n")
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_VECTOR_URL": f"http://127.0.0.1:{server.port}",
        "VTAG_VECTOR_TOKEN_FILE": str(token),
    }
    with make_client(settings) as client:
        stored = client.post("/videos", files={"video": film()})
        assert stored.status_code == 201, stored.text
        assert _found(client) == [stored.json()["id"]]
        server.deaf = True
        server.cut()
        until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["components"]["index"] == "down"
        assert 'vtag_component_up{component="index"} 0.0' in client.get("/metrics").text
        for answer in (
            client.post("/search", json={"query": "a dog"}),
            client.post("/videos", files={"video": film(seconds=1.5)}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "index_unavailable")
            assert "Retry-After" in answer.headers
        labels = {"labels": ["a dog", "a cat"]}
        tagged = client.post("/classify", files={"video": film()}, data=labels)
        assert tagged.status_code == 200
        assert [each["id"] for each in _listed(client)] == [stored.json()["id"]]
        server.heal()
        until(lambda: client.get("/readyz").status_code == 200)
        assert _found(client) == [stored.json()["id"]]


def _found(client: httpx.Client) -> list[str]:
    answer = client.post("/search", json={"query": "a dog"})
    assert answer.status_code == 200, answer.text
    return [hit["video_id"] for hit in answer.json()["data"]]


def _listed(client: httpx.Client) -> list[dict[str, str]]:
    found: list[dict[str, str]] = client.get("/videos").json()["data"]
    return found
