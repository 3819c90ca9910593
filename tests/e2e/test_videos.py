"""Index, list, look at, remove, find."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.videoclip.test_shots import shots, write

Film = Callable[..., bytes]


def _index(client: httpx.Client, film: bytes, **fields: object) -> httpx.Response:
    return client.post("/videos", files={"video": film}, data=fields)


def test_the_same_bytes_are_indexed_once(client: httpx.Client, film: Film) -> None:
    """201 with a location, then 200 with the same id; new metadata replaces the old."""
    first = _index(client, film(), external_id="cam-1", metadata='{"n": 1, "ok": true}')
    assert first.status_code == 201, first.text
    body = first.json()
    assert first.headers["location"] == f"/videos/{body['id']}"
    assert (body["segments"], body["external_id"]) == (2, "cam-1")
    assert body["metadata"] == {"n": 1, "ok": True}
    again = _index(client, film())
    assert (again.status_code, again.json()) == (200, body)
    changed = _index(client, film(), metadata='{"n": 2}').json()
    assert (changed["id"], changed["metadata"]) == (body["id"], {"n": 2})
    assert changed["external_id"] == "cam-1"
    assert changed["etag"] != body["etag"]


def test_a_known_video_is_not_cut_again_in_silence(client: httpx.Client, film: Film) -> None:
    """Another segments.length for known bytes gets the old cut and a warning that says so."""
    body = _index(client, film()).json()
    again = _index(client, film(), segments='{"length": 0.5}')
    assert (again.status_code, again.json()["segments"]) == (200, body["segments"])
    assert [item["code"] for item in again.json()["warnings"]] == ["already_indexed"]
    client.delete(f"/videos/{body['id']}")
    anew = _index(client, film(), segments='{"length": 0.5}')
    assert (anew.status_code, anew.json()["segments"]) == (201, 2 * body["segments"])


def test_a_video_is_indexed_by_its_shots(client: httpx.Client, tmp_path: Path) -> None:
    """The segments that a search answers with are those that `/classify` finds."""
    film = write(tmp_path / "film.mp4", shots([30, 45, 25])).read_bytes()
    body = _index(client, film, segments='{"mode": "shots"}').json()
    assert (body["segments"], body["warnings"]) == (3, [])
    found = client.post("/search", json={"query": "a dog", "group_by": "segment"})
    spans = sorted((hit["start"], hit["end"]) for hit in found.json()["data"])
    assert np.ravel(spans) == pytest.approx([0, 1.2, 1.2, 3.0, 3.0, 4.0])
    refused = _index(client, film, segments='{"mode": "scenes"}')
    assert (refused.status_code, refused.json()["param"]) == (422, "segments.mode")


def test_every_way_to_vectors_says_what_it_took(client: httpx.Client, film: Film) -> None:
    """Decoding and encoding are stages of all requests that do them, not of `/classify` alone."""
    segments = {"labels": "rain", "segments": '{"length": 0.5}'}
    answers = [
        _index(client, film()),
        client.post("/search", files={"video": film(seconds=3)}),
        client.post("/classify", files={"video": film()}, data=segments),
    ]
    for answer in answers:
        assert answer.is_success, answer.text
        parts = answer.headers["server-timing"].split(", ")
        taken = {
            name: float(milliseconds) for name, milliseconds in (p.split(";dur=") for p in parts)
        }
        assert taken["decode"] > 0
        assert taken["encode"] > 0
    # Twice: for the whole video, and for its segments.
    assert taken["encode"] > answers[2].json()["timings_ms"]["encode"]


def test_versions_guard_reads_and_deletes(client: httpx.Client, film: Film) -> None:
    """304 for a current copy, 412 for a stale delete, 204 and then 404."""
    body = _index(client, film()).json()
    path = f"/videos/{body['id']}"
    assert client.get(path, headers={"If-None-Match": body["etag"]}).status_code == 304
    _index(client, film(), external_id="new")
    fresh = client.get(path, headers={"If-None-Match": body["etag"]})
    assert fresh.status_code == 200
    stale = client.delete(path, headers={"If-Match": body["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    assert client.delete(path, headers={"If-Match": fresh.headers["etag"]}).status_code == 204
    assert client.delete(path).status_code == 404
    assert client.get(path).status_code == 404


def test_what_postgres_cannot_hold_is_refused_before_it(client: httpx.Client, film: Film) -> None:
    """A zero byte in a filter and versions beyond any integer are the client's mistakes."""
    answer = client.get("/videos", params={"external_id": "a\0"})
    assert (answer.status_code, answer.json()["param"]) == (422, "external_id")
    path = f"/videos/{_index(client, film()).json()['id']}"
    for digits in (11, 5000):
        tag = f'"{path.rsplit("/", 1)[1]}.{"9" * digits}"'
        late = client.delete(path, headers={"If-Match": tag})
        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")


def test_pages_visit_every_video_once(client: httpx.Client, film: Film) -> None:
    """Newest first, the cursor leads on, the last page has none; external_id filters."""
    ids = [
        _index(client, film(seconds=1 + n / 5), external_id=f"e{n % 2}").json()["id"]
        for n in range(3)
    ]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.get(
            "/videos", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [video["id"] for video in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)
    assert len(client.get("/videos", params={"external_id": "e0"}).json()["data"]) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": '{"a": {"deep": 1}}'},
        {"metadata": '{"a": [1]}'},
        {"metadata": '["a"]'},
        {"metadata": '{"bad key": 1}'},
        {"metadata": json.dumps({"a": "x" * 2001})},
        {"metadata": json.dumps({f"k{n}": n for n in range(65)})},
        {"external_id": ""},
        {"segments": '{"length": 0}'},
    ],
)
def test_metadata_is_typed_scalars(
    client: httpx.Client, film: Film, fields: dict[str, str]
) -> None:
    """Nested, oversized and unprintable values are refused with their place."""
    answer = _index(client, film(), **fields)
    assert answer.status_code == 422, answer.text
    assert client.get("/videos").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"metadata": json.dumps({"a": "nul\0"})}, "malformed_json"),
        ({"external_id": "nul\0"}, "malformed_multipart"),
    ],
)
def test_nul_is_refused_before_anything_else(
    client: httpx.Client, film: Film, fields: dict[str, str], code: str
) -> None:
    """No field holds it, and Postgres never sees it."""
    answer = _index(client, film(), **fields)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert client.get("/videos").json()["data"] == []


def test_search_finds_moments_by_text(client: httpx.Client, film: Film) -> None:
    """Hits carry what a product needs; grouping, top_k and min_score do what they say."""
    ids = {
        _index(
            client, film(seconds=seconds), external_id=f"{seconds:g}", metadata='{"k": 1}'
        ).json()["id"]
        for seconds in (2, 3)
    }
    body = client.post("/search", json={"query": "a red square"}).json()
    assert {hit["video_id"] for hit in body["data"]} == ids
    assert body["index"] | {"videos": 2, "segments": 5} == body["index"]
    best = body["data"][0]
    assert best["score"] == best["cosine"] == best["segments"][0]["cosine"]
    assert 0 <= best["start"] < best["end"] <= 3.01
    assert best["metadata"] == {"k": 1}
    segments = client.post(
        "/search", json={"query": {"text": "a red square"}, "group_by": "segment", "per_video": 1}
    ).json()["data"]
    assert len(segments) == 2
    assert len(client.post("/search", json={"query": "x", "top_k": 1}).json()["data"]) == 1
    assert client.post("/search", json={"query": "x", "min_score": 1.0}).json()["data"] == []


def test_search_by_embedding_equals_search_by_its_text(client: httpx.Client, film: Film) -> None:
    """The vector of /embeddings finds what the text finds; its length does not matter."""
    _index(client, film())
    vector = client.post("/embeddings", json={"input": "a dog"}).json()["data"][0]["embedding"]
    by_text = client.post("/search", json={"query": "a dog"}).json()["data"]
    longer = [3 * value for value in vector]
    by_vector = client.post("/search", json={"query": {"embedding": longer}}).json()["data"]
    assert by_vector[0]["cosine"] == pytest.approx(by_text[0]["cosine"], abs=1e-6)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"query": ""}, "invalid_request"),
        ({"query": {}}, "invalid_request"),
        ({"query": {"text": "a", "embedding": [1.0]}}, "invalid_request"),
        ({"query": {"embedding": [1.0]}}, "invalid_embedding"),
        ({"query": {"embedding": [0.0] * 8}}, "invalid_embedding"),
        ({"query": "a", "top_k": 0}, "invalid_request"),
        ({"query": "a", "top_k": 10**9}, "invalid_request"),
        ({"query": "a", "lambda": 2}, "invalid_request"),
        ({"query": "a", "filter": {}}, "invalid_request"),
    ],
)
def test_queries_that_cannot_be_used(client: httpx.Client, body: object, code: str) -> None:
    """422 with the code."""
    answer = client.post("/search", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


def test_an_empty_index_has_no_hits(client: httpx.Client) -> None:
    """Nothing indexed is an empty answer, not an error."""
    assert client.post("/search", json={"query": "a"}).json()["data"] == []


def test_embeddings_in_the_shape_of_openai(client: httpx.Client, film: Film) -> None:
    """Texts and videos, floats and base64, unit length, in order."""
    body = client.post("/embeddings", json={"input": ["a dog", "rain"], "model": "small"}).json()
    assert (body["object"], [item["index"] for item in body["data"]]) == ("list", [0, 1])
    vectors = np.array([item["embedding"] for item in body["data"]])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    packed = client.post("/embeddings", json={"input": "a dog", "encoding_format": "base64"}).json()
    found = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert found == pytest.approx(vectors[0], abs=1e-6)
    video = {"type": "base64", "data": base64.b64encode(film()).decode()}
    by_video = client.post("/embeddings", json={"input": [video], "modality": "video"}).json()
    classified = client.post(
        "/classify", files={"video": film()}, data={"labels": ["a"], "include": "embedding"}
    ).json()
    assert by_video["data"][0]["embedding"] == pytest.approx(classified["embedding"], abs=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        {"input": []},
        {"input": ["a"] * 257},
        {"input": "a", "dimensions": 4},
        {"input": "a", "model": "b"},
        {"input": "a", "modality": "video"},
        {"input": [{"type": "base64", "data": ""}]},
    ],
)
def test_embeddings_that_cannot_be_made(client: httpx.Client, body: object) -> None:
    """422, never a truncated or empty vector."""
    assert client.post("/embeddings", json=body).status_code == 422
