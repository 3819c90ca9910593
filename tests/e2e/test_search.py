"""Filters, pages and the space that is searched, as clients see them."""

import base64
import json
from collections.abc import Callable, Iterator

import httpx
import pytest

Film = Callable[..., bytes]


@pytest.fixture(scope="module")
def films(session_client: httpx.Client, film: Film) -> Iterator[dict[str, str]]:
    """Five videos in a collection of their own: external id -> id."""
    session_client.post("/collections", json={"name": "search"}).raise_for_status()
    ids = {}
    for number in range(5):
        metadata = {"n": number, "camera": f"cam-{number % 2}", "ok": number > 0}
        answer = session_client.post(
            "/videos",
            files={"video": film(seconds=2 + number / 5)},
            data={
                "external_id": f"e{number}",
                "metadata": json.dumps(metadata),
                "collection": "search",
            },
        )
        ids[f"e{number}"] = answer.json()["id"]
    yield ids
    session_client.delete("/collections/search")


def _search(client: httpx.Client, **options: object) -> httpx.Response:
    return client.post("/search", json={"query": "a dog", "collection": "search", **options})


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"metadata": {"camera": "cam-1"}}, "13"),
        ({"metadata": {"camera": {"in": ["cam-0", "none"]}}}, "024"),
        ({"metadata": {"n": {"gte": 1, "lt": 3.5}}}, "123"),
        ({"metadata": {"n": {"gt": 2}, "camera": {"eq": "cam-0"}}}, "4"),
        ({"metadata": {"n": "1"}}, ""),
        ({"metadata": {"ok": False}}, "0"),
        ({"metadata": {"ok": 0}}, ""),
        ({"metadata": {"camera": {"gte": "cam-1"}}}, "13"),
        ({"metadata": {"none": {"exists": False}, "n": {"exists": True, "lte": 0}}}, "0"),
        ({"external_id": "e2"}, "2"),
        ({"external_id": ["e2", "e4", "x"]}, "24"),
        ({"created": {"before": "2020-01-01T00:00:00Z"}}, ""),
        ({"created": {"from": "2020-01-01T00:00:00+01:00"}}, "01234"),
        ({"time": {"start": 2.5}}, "34"),
        ({"time": {"end": 0.5}, "external_id": "e0"}, "0"),
    ],
)
def test_filters_choose(
    client: httpx.Client, films: dict[str, str], wanted: object, expected: str
) -> None:
    """By typed metadata, external id, day of indexing and seconds of the video; all must hold."""
    answer = _search(client, filter=wanted)
    assert answer.status_code == 200, answer.text
    found = {hit["video_id"] for hit in answer.json()["data"]}
    assert found == {films[f"e{number}"] for number in expected}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"metadata": {}},
        {"metadata": {"n": {}}},
        {"metadata": {"n": {"gte": 1, "lt": "b"}}},
        {"metadata": {"n": {"gte": True}}},
        {"metadata": {"n": {"like": "a"}}},
        {"metadata": {f"k{n}": 1 for n in range(17)}},
        {"metadata": {"bad key": 1}},
        {"external_id": []},
        {"created": {"from": "2020-01-01T00:00:00"}},
        {"created": {"from": "0001-01-01T00:00:00+14:00"}},
        {"time": {"start": 2, "end": 1}},
        {"anything": 1},
    ],
)
def test_filters_that_cannot_be_used(client: httpx.Client, wanted: object) -> None:
    """422 names the filter."""
    answer = client.post("/search", json={"query": "a dog", "filter": wanted})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert answer.json()["param"].startswith("filter")


@pytest.mark.parametrize("group_by", ["video", "segment"])
def test_pages_give_what_one_answer_gives(
    client: httpx.Client, films: dict[str, str], group_by: str
) -> None:
    """Following the cursor visits every hit once, in order; top_k may change on the way."""
    wish = {"group_by": group_by, "filter": {"external_id": sorted(films)}}
    whole = _search(client, top_k=100, **wish).json()
    assert whole["next_cursor"] is None
    pages: list[object] = []
    cursor: dict[str, str] = {}
    for top_k in (1, 2, 2, 100):
        page = _search(client, top_k=top_k, **wish, **cursor).json()
        pages += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert pages == whole["data"]
    assert page["next_cursor"] is None


def test_a_cursor_belongs_to_one_request(client: httpx.Client, films: dict[str, str]) -> None:
    """Another query, filter or grouping, and anything that is no cursor, is a plain 400."""
    cursor = _search(client, top_k=1).json()["next_cursor"]
    assert len(films) > 1
    torn = base64.urlsafe_b64encode(base64.urlsafe_b64decode(cursor + "==")[:-4]).decode()
    for options in (
        {"query": "a cat", "cursor": cursor},
        {"cursor": cursor, "filter": {"external_id": "e1"}},
        {"cursor": cursor, "group_by": "segment"},
        {"cursor": cursor, "collection": "default"},
        {"cursor": torn.rstrip("=")},
        {"cursor": "A"},
        {"cursor": "!"},
        {"cursor": "bm90aGluZwp4"},
    ):
        answer = _search(client, **options)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor"), answer.text
        assert answer.json()["param"] == "cursor"
