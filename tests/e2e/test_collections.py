"""Collections and changes of videos, as clients see them."""

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.running_service import RunningService

Film = Callable[..., bytes]


@pytest.fixture
def cats(client: httpx.Client) -> Iterator[str]:
    """An empty collection."""
    made = client.post("/collections", json={"name": "cats"})
    assert (made.status_code, made.headers["location"]) == (201, "/collections/cats")
    assert made.json() | {"name": "cats", "videos": 0, "spaces": []} == made.json()
    yield "cats"
    client.delete("/collections/cats")


def _index(client: httpx.Client, film: bytes, **fields: object) -> httpx.Response:
    return client.post("/videos", files={"video": film}, data=fields)


def test_collections_are_apart(client: httpx.Client, film: Film, cats: str) -> None:
    """The same bytes are a video of each; lists and searches see the one they name."""
    first = _index(client, film()).json()
    second = _index(client, film(), collection=cats)
    assert second.status_code == 201
    assert (first["collection"], second.json()["collection"]) == ("default", cats)
    assert _index(client, film(), collection=cats).status_code == 200
    for collection, video in (("default", first), (cats, second.json())):
        listed = client.get("/videos", params={"collection": collection}).json()["data"]
        assert [each["id"] for each in listed] == [video["id"]]
        found = client.post("/search", json={"query": "a dog", "collection": collection}).json()
        assert [hit["video_id"] for hit in found["data"]] == [video["id"]]
        assert found["index"] | {"id": collection, "videos": 1} == found["index"]
    listed = client.get("/collections").json()["data"]
    assert [(each["name"], each["videos"]) for each in listed] == [("cats", 1), ("default", 1)]
    assert client.get("/collections/cats").json() == listed[0]
    assert listed[0]["spaces"][0]["segments"] == 2
    assert client.delete("/collections/cats").status_code == 204
    assert client.get(f"/videos/{second.json()['id']}").status_code == 404
    assert client.get(f"/videos/{first['id']}").status_code == 200


def test_bytes_go_with_the_last_collection_that_has_them(
    client: httpx.Client, service: RunningService, film: Film, cats: str
) -> None:
    """What other collections have, too, is kept; the rest is gone soon after DELETE."""
    shared, lonely = film(), film(seconds=1.4)
    stays = _index(client, shared).json()
    _index(client, shared, collection=cats)
    goes = _index(client, lonely, collection=cats).json()
    hits = client.post("/search", json={"query": "a dog", "collection": cats}).json()["data"]
    assert all(client.get(hit["thumbnail_url"]).status_code == 200 for hit in hits)
    media = service.log.parent / "data" / "media"
    kept = {each["sha256"]: media / each["sha256"][:2] / each["sha256"] for each in (stays, goes)}
    assert all(path.exists() for path in kept.values())
    assert client.delete(f"/collections/{cats}").status_code == 204
    deadline = time.monotonic() + 60
    while kept[goes["sha256"]].exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not kept[goes["sha256"]].exists()
    assert client.get(f"/videos/{stays['id']}/content").content == shared


def test_what_is_wrong_with_a_collection_is_said(
    client: httpx.Client, film: Film, cats: str
) -> None:
    """404 for none, before anything is decoded; 409 for a taken name and for the default one."""
    answers = [
        client.get("/collections/dogs"),
        client.delete("/collections/dogs"),
        client.get("/videos", params={"collection": "dogs"}),
        client.post("/search", json={"query": "a", "collection": "dogs"}),
        _index(client, b"not a video", collection="dogs"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")
    taken = client.post("/collections", json={"name": cats})
    assert (taken.status_code, taken.json()["code"]) == (409, "collection_exists")
    kept = client.delete("/collections/default")
    assert (kept.status_code, kept.json()["code"]) == (409, "collection_required")
    for name in ("", "a b", "a/b", "-a", "a" * 65, 1, None):
        answer = client.post("/collections", json={"name": name})
        assert (answer.status_code, answer.json()["param"]) == (422, "name")
    assert _index(client, film(), collection="a b").json()["param"] == "collection"


def test_a_change_is_merged_and_guarded_by_the_version(client: httpx.Client, film: Film) -> None:
    """Merge patch with If-Match: null removes, a stale version changes nothing, 412."""
    body = _index(client, film(), external_id="cam-1", metadata='{"n": 1, "ok": true}').json()
    path = f"/videos/{body['id']}"
    changed = client.patch(
        path,
        json={"metadata": {"n": 2, "ok": None, "who": "é"}},
        headers={"If-Match": body["etag"], "Content-Type": "application/merge-patch+json"},
    )
    assert changed.status_code == 200, changed.text
    assert changed.json()["metadata"] == {"n": 2, "who": "é"}
    assert changed.json()["external_id"] == "cam-1"
    assert changed.headers["etag"] == changed.json()["etag"] != body["etag"]
    assert client.get(path).json() == changed.json()
    stale = client.patch(path, json={"external_id": None}, headers={"If-Match": body["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    cleared = client.patch(path, json={"external_id": None, "metadata": None}).json()
    assert (cleared["external_id"], cleared["metadata"]) == (None, {})
    assert client.patch(path, json={}).json() == cleared


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"metadata": {"a": [1]}}, 422, "metadata.a.bool"),
        ({"metadata": {"bad key": 1}}, 422, "metadata.bad key.[key]"),
        ({"metadata": {f"k{n}": n for n in range(65)}}, 422, "metadata"),
        ({"external_id": 1}, 422, "external_id"),
        ({"duration": 1}, 422, "duration"),
    ],
)
def test_changes_that_cannot_be_made(
    client: httpx.Client, film: Film, body: object, status: int, param: str
) -> None:
    """422 with the place; what the service found out itself cannot be changed."""
    video = _index(client, film(), metadata='{"there": 1}').json()
    answer = client.patch(f"/videos/{video['id']}", json=body)
    assert (answer.status_code, answer.json()["param"]) == (status, param), answer.text
    assert client.patch("/videos/vid_none", json={}).status_code == 404


def test_metadata_does_not_grow_beyond_its_limit(client: httpx.Client, film: Film) -> None:
    """Two patches that are small by themselves are counted together."""
    video = _index(client, film()).json()
    for first, status in ((0, 200), (40, 422)):
        patch = {"metadata": {f"k{n}": n for n in range(first, first + 40)}}
        answer = client.patch(f"/videos/{video['id']}", json=patch)
        assert answer.status_code == status, answer.text
    assert answer.json()["limit"] == 64
