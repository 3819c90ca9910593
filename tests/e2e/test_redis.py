"""Redis is a convenience: with it labels are shared, without it nothing is lost but time."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import make_client
from tests.redis_server import RedisServer

Film = Callable[..., bytes]


def _tag(client: httpx.Client, film: bytes, label: str) -> int:
    answer = client.post("/classify", files={"video": film}, data={"labels": [label, "rain"]})
    assert answer.status_code == 200, answer.text
    hits: int = answer.json()["usage"]["text_cache_hits"]
    return hits


@pytest.mark.slow
def test_labels_outlive_the_service_and_requests_outlive_redis(
    small_store: Path, film: Film, redis_server: RedisServer
) -> None:
    """A new service finds the labels of the old one; Redis killed or hung is degraded, not down."""
    environment = {"VTAG_MODEL_STORE": str(small_store), "VTAG_REDIS_URL": redis_server.url}
    with make_client(environment) as client:
        assert _tag(client, film(), "a dog") == 0
        assert client.get("/readyz").json()["components"]["redis"] == "ok"
    with make_client(environment) as client:
        assert _tag(client, film(), "a dog") == 2
        redis_server.stop()
        assert _tag(client, film(), "a cat") == 1
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["components"]["redis"]) == (200, "degraded")
        redis_server.kill()
        assert _tag(client, film(), "a horse") == 1
