"""Artefacts over HTTP: listed with what was measured, activated, watched, refused; nobody waits."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.e2e.conftest import make_client
from tests.service.small_artefact import publish, weights

Film = Callable[..., bytes]
LABELS = ["a red square", "a dog", "rain"]


@dataclass
class World:
    """A store with two artefacts, and a service that serves one of them."""

    root: Path
    client: httpx.Client
    first: str
    second: str

    def tag(self, film: bytes) -> tuple[str, dict[str, float]]:
        """The space and the cosines of one request."""
        answer = self.client.post(
            "/classify", files={"video": film}, data={"labels": LABELS, "scores": "cosine"}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return body["model"]["space"], {tag["label"]: tag["score"] for tag in body["tags"]}

    def activate(self, model: str) -> httpx.Response:
        """Ask for it until no other one is in the way."""
        name, revision = model.split("@")
        end = time.monotonic() + 60
        while True:
            answer = self.client.post(f"/models/{name}/{revision}/activate")
            if answer.status_code != 409 or answer.json()["code"] != "activation_running":
                return answer
            assert answer.headers["retry-after"]
            assert time.monotonic() < end
            time.sleep(0.1)

    def served(self) -> str:
        """The artefact of `GET /lambda`."""
        body = self.client.get("/lambda").json()
        return f"{body['model']}@{body['revision']}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One service for the tests of this file; each begins by activating what it needs."""
    root = tmp_path_factory.mktemp("two") / "model_store"
    first = publish(root, text_tower_tuned=True)
    second = publish(
        root,
        name="second",
        clip=weights(7),
        tuned=weights(8),
        text_tower_tuned=True,
        default_clip_weight=0.25,
        activate=False,
    )
    settings = {
        "VTAG_MODEL_STORE": str(root),
        "VTAG_STORE_WATCH_SECONDS": "0.2",
        "VTAG_SEGMENT_SECONDS": "1",
    }
    with make_client(settings) as client:
        yield World(root, client, f"small@{first.revision}", f"second@{second.revision}")


def test_activated_by_http_it_serves_and_is_kept(world: World, film: Film) -> None:
    """The answer names what serves and what did; listings, metrics and active.json follow."""
    world.activate(world.first)
    answer = world.activate(world.second)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert f"{body['model']}@{body['revision']}" == world.second
    assert (body["lambda"], body["previous"], body["changed"]) == (0.25, world.first, True)
    assert body["warnings"] == []
    assert world.tag(film())[0] == body["space"]
    models = world.client.get("/models").json()["data"]
    assert {item["id"]: item["status"] for item in models} == {
        "second": "served",
        "small": "available",
    }
    active = json.loads((world.root / "active.json").read_text())
    assert active["active"]["name"] == "second"
    assert active["previous"]["name"] == "small"
    metrics = world.client.get("/metrics").text
    assert f'vtag_model_info{{name="second",revision="{body["revision"]}"}} 1.0' in metrics
    assert "vtag_lambda 0.25" in metrics
    assert world.activate(world.second).json()["changed"] is False


@pytest.mark.slow
def test_requests_go_on_while_artefacts_change(world: World, film: Film) -> None:
    """Each answer is a whole one of the artefact that it names; every request gets one."""
    video = film()
    known = {}
    for model in (world.first, world.second):
        world.activate(model)
        space, scores = world.tag(video)
        known[space] = scores
    done = threading.Event()
    seen: list[str] = []
    faults: list[str] = []

    def ask() -> None:
        while not done.is_set():
            try:
                space, scores = world.tag(video)
                assert scores == pytest.approx(known[space], abs=1e-4)
                seen.append(space)
            except Exception as error:  # noqa: BLE001 - shown by the test
                faults.append(repr(error))
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(4):
        assert world.activate((world.first, world.second)[number % 2]).status_code == 200
        answered = len(seen)
        while len(seen) < answered + 4 and not faults:
            time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert set(seen) == set(known)


def test_a_search_never_meets_vectors_of_another_artefact(world: World, film: Film) -> None:
    """409 names what is there; going back finds it, and at the λ that was chosen there."""
    world.activate(world.first)
    assert world.client.put("/lambda", json={"lambda": 0.75}).status_code == 200
    world.client.post("/videos", files={"video": film(seconds=3)})
    world.activate(world.second)
    refused = world.client.post("/search", json={"query": "a dog"})
    assert (refused.status_code, refused.json()["code"]) == (409, "index_lambda_mismatch")
    assert [item["id"] for item in refused.json()["spaces"]] == [f"{world.first}/0.75"]
    world.activate(world.first)
    found = world.client.post("/search", json={"query": "a dog"})
    assert (found.status_code, len(found.json()["data"])) == (200, 1)
    assert found.json()["index"]["space"] == f"{world.first}/0.75"


def test_what_active_json_names_is_served_by_itself(world: World, film: Film) -> None:
    """Rewritten by whoever publishes, it is followed within a few looks."""
    world.activate(world.first)
    name, revision = world.second.split("@")
    beside = world.root / ".active"
    beside.write_text(json.dumps({"active": {"name": name, "revision": revision}}))
    beside.replace(world.root / "active.json")
    _wait(lambda: world.served() == world.second)
    assert world.tag(film())[0].startswith(world.second)


def test_new_artefacts_appear_and_broken_ones_are_refused(world: World, film: Film) -> None:
    """Listed as soon as they are there; a broken one is refused with the reason, by both ways."""
    world.activate(world.first)
    before = world.tag(film())
    third = publish(
        world.root, name="third", clip=weights(9), tuned=weights(10), text_tower_tuned=True,
        activate=False,
    )  # fmt: skip
    where = f"/models/third/{third.revision}"
    assert world.client.get(where).json()["status"] == "available"
    path = world.root / "third" / third.revision / "weights_tuned.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the right size: only reading it tells
    path.write_bytes(content)
    refused = world.activate(f"third@{third.revision}")
    assert (refused.status_code, refused.json()["code"]) == (409, "artefact_refused")
    assert refused.json()["retryable"] is False
    line = f"third/{third.revision}/weights_tuned.safetensors: expected sha256 "
    assert line in refused.json()["detail"]
    assert world.client.get(where).json()["reason"].startswith(line)
    beside = world.root / ".active"
    beside.write_text(json.dumps({"active": {"name": "third", "revision": third.revision}}))
    beside.replace(world.root / "active.json")
    _wait(lambda: 'vtag_activations_total{outcome="refused"} 2.0' in _metrics(world))
    assert world.tag(film()) == before
    path.write_bytes(path.read_bytes()[:-9])
    broken = world.client.get(where).json()
    assert broken["status"] == "broken"
    assert "bytes, found" in broken["reason"]
    assert world.tag(film()) == before


def test_what_is_not_there_is_404(world: World) -> None:
    """A name of no artefact, or of no folder, is looked up nowhere else."""
    paths = ("/models/none/000000000000", "/models/small/x", "/models/..%2f..%2fetc/000000000000")
    for path in paths:
        assert world.client.get(path).status_code == 404
        answer = world.client.post(f"{path}/activate")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_weights_replaced_under_load_do_no_harm(world: World, film: Film) -> None:
    """What is loaded serves on with the same scores, and the listing says what happened."""
    world.activate(world.first)
    name, revision = world.first.split("@")
    before = world.tag(film())
    folder = world.root / name / revision
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        for path, content in kept.items():
            path.write_bytes(content[: len(content) // 2])
            assert world.tag(film()) == before
        shown = world.client.get(f"/models/{name}/{revision}").json()
        assert shown["status"] == "served"
        assert shown["reason"]
        assert world.client.get("/readyz").status_code == 200
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert world.tag(film()) == before


@pytest.mark.slow
def test_the_demo_artefact_shows_what_was_measured() -> None:
    """Curve, calibration before and after at each λ, parity and provenance, as in its manifest."""
    store = REPOSITORY / "model_store"
    active: dict[str, Any] = json.loads((store / "active.json").read_text())["active"]
    folder = store / active["name"] / active["revision"]
    manifest = json.loads((folder / "manifest.json").read_text())
    with make_client({"VTAG_MODEL_STORE": str(store)}) as client:
        found = client.get(f"/models/{active['name']}/{active['revision']}").json()
    assert found["status"] == "served"
    assert [point["lambda"] for point in found["curve"]] == [
        point["clip_weight"] for point in manifest["curve"]
    ]
    assert found["parity"] == manifest["parity"]
    fitted = manifest.get("calibration")
    if fitted is None:
        assert found["calibration"] is None
        return
    for shown, point in zip(found["calibration"]["points"], fitted["points"], strict=True):
        assert shown["lambda"] == point["clip_weight"]
        for side in ("before", "after"):
            assert shown[side]["ece"] == point[side]["ece"]
            assert shown[side]["log_loss"] == point[side]["log_loss"]


def _metrics(world: World) -> str:
    return world.client.get("/metrics").text


def _wait(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
