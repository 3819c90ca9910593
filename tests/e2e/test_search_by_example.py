"""Searching by pictures, videos, stored videos and several things together, as clients do it."""

import base64
import io
import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image

Film = Callable[..., bytes]
Json = dict[str, object]


def _index(client: httpx.Client, film: bytes) -> str:
    answer = client.post("/videos", files={"video": film}, data={"segments": '{"length": 60}'})
    return str(answer.json()["id"])


def _picture(kind: str = "PNG", shade: int = 200) -> bytes:
    drawn = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 30, 10)).save(drawn, kind)
    return drawn.getvalue()


def _base64(data: bytes) -> Json:
    return {"type": "base64", "data": base64.b64encode(data).decode()}


def _search(client: httpx.Client, query: object, **options: object) -> list[Json]:
    answer = client.post("/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def _embedding(client: httpx.Client, text: str) -> list[float]:
    answer = client.post("/embeddings", json={"input": text}).json()
    return list(answer["data"][0]["embedding"])


def test_a_video_finds_itself(client: httpx.Client, film: Film) -> None:
    """Its bytes, in JSON or as a file of a form, are nearest to what was indexed of them."""
    ids = [_index(client, film(seconds=seconds)) for seconds in (2, 3)]
    data = film(seconds=3)
    by_json = _search(client, {"video": _base64(data)})
    by_form = client.post("/search", files={"video": data}).json()["data"]
    assert [hit["video_id"] for hit in by_json] == [hit["video_id"] for hit in by_form]
    assert {hit["video_id"] for hit in by_json} == set(ids)
    cosines = {hit["video_id"]: hit["cosine"] for hit in by_json}
    assert cosines == {hit["video_id"]: pytest.approx(hit["cosine"], abs=1e-5) for hit in by_form}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_a_video_that_stands_still(
    client: httpx.Client, film: Film, kind: str
) -> None:
    """Each format is decoded; the file in a form and base64 in JSON are the same query."""
    _index(client, film())
    picture = _picture(kind)
    [by_json] = _search(client, {"image": _base64(picture)})
    answer = client.post("/search", files={"image": ("any.name", picture)})
    assert answer.status_code == 200, answer.text
    [by_form] = answer.json()["data"]
    assert by_form["cosine"] == pytest.approx(by_json["cosine"], abs=1e-5)
    assert answer.json()["warnings"] == []


def test_a_stored_video_finds_others(client: httpx.Client, film: Film) -> None:
    """Its own vectors are the query, and it is not among the hits; others are."""
    first, second = (_index(client, film(seconds=seconds)) for seconds in (2, 3))
    [hit] = _search(client, {"video_id": first})
    assert hit["video_id"] == second
    assert len(_search(client, {"parts": [{"text": "a"}, {"video_id": first, "not": True}]})) == 2
    missing = client.post("/search", json={"query": {"video_id": "vid_none"}})
    assert (missing.status_code, missing.json()["code"]) == (404, "video_not_found")
    assert missing.json()["param"] == "query.video_id"


def test_parts_are_added_and_taken_away(client: httpx.Client, film: Film) -> None:
    """The hits are those of the vector that the documented sum gives."""
    _index(client, film())
    dog, rain = (np.asarray(_embedding(client, text)) for text in ("a dog", "rain"))
    picture = _base64(_picture())
    for parts, whole in (
        ([{"text": "a dog"}, {"text": "rain", "not": True}], dog - 0.5 * rain),
        ([{"text": "a dog", "weight": 2}, {"embedding": rain.tolist()}], 2 * dog + rain),
        ([{"text": "rain", "weight": 0.25, "not": True}, {"text": "a dog"}], dog - 0.25 * rain),
    ):
        [by_parts] = _search(client, {"parts": parts})
        [by_sum] = _search(client, {"embedding": whole.tolist()})
        assert by_parts["cosine"] == pytest.approx(by_sum["cosine"], abs=1e-5)
    mixed = client.post(
        "/search", files={"image": _picture()}, data={"query": "a dog", "top_k": "1"}
    )
    [by_form] = mixed.json()["data"]
    [by_json] = _search(client, {"parts": [{"text": "a dog"}, {"image": picture}]})
    assert by_form["cosine"] == pytest.approx(by_json["cosine"], abs=1e-5)


def test_a_form_names_its_files(client: httpx.Client, film: Film) -> None:
    """Files of any name are parts where the query says so, with weights; pages go on from there."""
    for seconds in (2, 3):
        _index(client, film(seconds=seconds))
    query = {
        "parts": [
            {"image": {"type": "file", "name": "this"}},
            {"image": {"type": "file", "name": "that"}, "not": True, "weight": 0.3},
        ]
    }
    fields = {"query": query, "top_k": 1}
    files = {"this": ("a", _picture(shade=250)), "that": ("b", _picture(shade=10))}
    first = client.post("/search", files=files, data={"request": json.dumps(fields)})
    assert first.status_code == 200, first.text
    fields["cursor"] = first.json()["next_cursor"]
    second = client.post("/search", files=files, data={"request": json.dumps(fields)}).json()
    ids = [first.json()["data"][0]["video_id"], second["data"][0]["video_id"]]
    assert len(set(ids)) == 2
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"parts": []}, 422, "invalid_request"),
        ({"parts": [{"text": "a", "not": True}]}, 422, "invalid_request"),
        ({"parts": [{"text": "a", "weight": 0}]}, 422, "invalid_request"),
        ({"parts": [{"text": "a"}], "text": "a"}, 422, "invalid_request"),
        ({"parts": [{"text": "a"}, {"text": "a", "not": True, "weight": 1}]}, 422,
         "invalid_embedding"),
        ({"image": {"type": "base64"}}, 422, "invalid_request"),
        ({"image": {"type": "base64", "data": "!"}}, 422, "invalid_base64"),
        ({"image": _base64(b"no picture")}, 415, "unsupported_container"),
        ({"video": _base64(_picture())}, 415, "unsupported_container"),
        ({"image": {"type": "file", "name": "x"}}, 422, "missing_video"),
        ({"image": {"type": "url", "url": "http://127.0.0.1/a.png"}}, 422, "url_not_allowed"),
    ],
)  # fmt: skip
def test_queries_by_example_that_cannot_be_used(
    client: httpx.Client, query: object, status: int, code: str
) -> None:
    """The status and code of the same fault in a video."""
    answer = client.post("/search", json={"query": query})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_forms_that_cannot_be_used(client: httpx.Client) -> None:
    """No query, a file that nothing names, one that comes twice, too many of them."""
    picture = ("a.png", _picture())
    for files, status in (
        ([("other", picture)], 422),
        ([("image", picture), ("image", picture)], 400),
        ([(f"f{n}", picture) for n in range(5)], 400),
    ):
        answer = client.post("/search", files=files)
        assert answer.status_code == status, answer.text
    empty = client.post("/search", files={"top_k": (None, "1")})
    assert (empty.status_code, empty.json()["param"]) == (422, "query")
