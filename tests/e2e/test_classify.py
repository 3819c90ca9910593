"""`POST /classify`: shapes, options, refusals."""

import base64
import json
from collections.abc import Callable

import httpx
import pytest

Film = Callable[..., bytes]
LABELS = ["a red square", "a green circle", "rain"]


def _classify(client: httpx.Client, film: bytes, **fields: object) -> httpx.Response:
    return client.post("/classify", files={"video": film}, data={"labels": LABELS, **fields})


def test_a_form_gets_scored_tags(client: httpx.Client, film: Film) -> None:
    """Every label once, best first, with times of the frames, model, timings and counts."""
    answer = _classify(client, film())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {tag["label"] for tag in body["tags"]} == set(LABELS)
    scores = [tag["score"] for tag in body["tags"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert body["video"]["frames_used"] == pytest.approx([1 / 3, 1.0, 5 / 3], abs=0.04)
    assert body["video"]["duration"] == pytest.approx(2.0)
    assert (body["video"]["width"], body["video"]["codec"]) == (160, "h264")
    assert body["model"]["lambda"] == 0.5
    assert body["model"]["space"].endswith("/0.5")
    assert body["usage"] == {
        "frames": 3,
        "labels": 3,
        "text_cache_hits": body["usage"]["text_cache_hits"],
    }
    assert {"decode", "encode", "total"} <= set(body["timings_ms"])
    assert body["id"].startswith("cls_")
    assert body["none_score"] is None
    assert "decode;dur=" in answer.headers["server-timing"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_json_and_both_kinds_of_form_give_the_same_answer(client: httpx.Client, film: Film) -> None:
    """base64 in JSON, options as fields, options as one JSON field."""
    options = {"labels": LABELS, "scores": "cosine", "top_k": 2}
    encoded = base64.b64encode(film()).decode()
    answers = [
        client.post("/classify", json={"video": {"type": "base64", "data": encoded}, **options}),
        _classify(client, film(), scores="cosine", top_k="2"),
        client.post("/classify", files={"video": film()}, data={"request": json.dumps(options)}),
    ]
    tags = [answer.json()["tags"] for answer in answers]
    assert len(tags[0]) == 2
    assert tags[0] == tags[1] == tags[2]


def test_kinds_of_scores(client: httpx.Client, film: Film) -> None:
    """Independent scores come with none_score unless it is not wanted; a threshold cuts."""
    independent = _classify(client, film(), scores="independent").json()
    best = independent["tags"][0]["score"]
    assert independent["none_score"] == pytest.approx(1 - best)
    without = _classify(client, film(), scores="independent", allow_none="false").json()
    assert without["none_score"] is None
    cosine = _classify(client, film(), scores="cosine").json()["tags"]
    assert [tag["score"] for tag in cosine] == [tag["cosine"] for tag in cosine]
    cut = _classify(client, film(), scores="cosine", threshold=str(cosine[1]["score"])).json()
    assert len(cut["tags"]) == 2


def test_label_objects_keep_their_ids(client: httpx.Client, film: Film) -> None:
    """A label may have an id, several texts and texts against it."""
    labels = [{"id": "sq", "text": ["a square", "a box"], "negative": ["a dog"]}, "rain"]
    answer = client.post(
        "/classify", files={"video": film()}, data={"request": json.dumps({"labels": labels})}
    )
    assert {tag["label_id"] for tag in answer.json()["tags"]} == {"sq", None}


def test_sampling_and_embedding(client: httpx.Client, film: Film) -> None:
    """A part of the video, given times, fps, and the embedding when it is asked for."""

    def used(**sampling: object) -> list[float]:
        answer = _classify(client, film(), sampling=json.dumps(sampling))
        assert answer.status_code == 200, answer.text
        found: list[float] = answer.json()["video"]["frames_used"]
        return found

    assert all(1.0 <= time < 2.0 for time in used(start=1.0))
    assert used(mode="timestamps", timestamps=[0.0, 0.5, 1.9]) == pytest.approx(
        [0.0, 0.5, 1.9], abs=0.07
    )
    assert len(used(mode="fps", fps=5)) == 3
    body = _classify(client, film(), include="embedding").json()
    assert len(body["embedding"]) == 8
    assert sum(x * x for x in body["embedding"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"labels": []}, 422, "invalid_request", "labels"),
        ({"labels": [" "]}, 422, "empty_label", "labels"),
        ({"labels": ["a", "a "]}, 422, "duplicate_label", "labels"),
        ({"labels": [f"n{i}" for i in range(1001)]}, 422, "too_many_labels", "labels"),
        ({"labels": [f"n{i}" for i in range(1000)], "templates": [f"{i} {{}}" for i in range(51)]},
         422, "too_many_sentences", "labels"),
        ({"labels": ["x" * 401]}, 422, "label_too_long", "labels"),
        ({"top_k": "0"}, 422, "invalid_request", "top_k"),
        ({"top_k": "1e9"}, 422, "invalid_request", "top_k"),
        ({"threshold": "nan"}, 422, "invalid_request", "threshold"),
        ({"threshold": "2"}, 422, "invalid_request", "threshold"),
        ({"lambda": "1.1"}, 422, "invalid_request", "lambda"),
        ({"templates": ["no placeholder"]}, 422, "invalid_template", "templates"),
        ({"template_set": "nonsense"}, 422, "unknown_template_set", "template_set"),
        ({"model": "vitb16"}, 422, "model_not_served", "model"),
        ({"sampling": '{"start": 1, "end": 1}'}, 422, "invalid_request", "sampling"),
        ({"sampling": '{"start": 99}'}, 422, "time_range", "video"),
        ({"sampling": '{"frames": 4}'}, 422, "invalid_sampling", "sampling.frames"),
        ({"sampling": "{"}, 400, "malformed_json", "sampling"),
        ({"scores": "magic"}, 422, "invalid_request", "scores"),
        ({"colour": "red"}, 422, "invalid_request", "colour"),
        ({"top_k": ["1", "2"]}, 422, "invalid_request", "top_k"),
        ({"timeout_s": "0.001"}, 504, "deadline_exceeded", "timeout_s"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_named(
    client: httpx.Client,
    film: Film,
    fields: dict[str, object],
    status: int,
    code: str,
    param: str | None,
) -> None:
    """A problem with code and field, and where there is one the limit."""
    answer = client.post(
        "/classify", files={"video": film()}, data={"labels": ["a", "b"], **fields}
    )
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.get("param") == param
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("video", "status", "code"),
    [
        (None, 422, "missing_video"),
        ({"type": "url", "url": "http://127.0.0.1/x.mp4"}, 422, "url_not_allowed"),
        ({"type": "video_id", "video_id": "vid_1"}, 404, "video_not_found"),
        ({"type": "video_id"}, 422, "missing_video"),
        ({"type": "upload_id", "upload_id": "upl_1"}, 422, "video_not_kept"),
        ({"type": "base64"}, 422, "missing_video"),
        ({"type": "base64", "data": "%%%"}, 422, "invalid_base64"),
        ({"type": "base64", "data": "aGVsbG8="}, 415, "unsupported_container"),
        ({"type": "path", "path": "/etc/passwd"}, 422, "invalid_request"),
    ],
)
def test_videos_of_json_that_cannot_be_had(
    client: httpx.Client, video: object, status: int, code: str
) -> None:
    """What is not offered is refused clearly; nothing is fetched."""
    answer = client.post("/classify", json={"video": video, "labels": ["a"]})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("value", ['"0.5"', "true", "NaN"])
def test_json_numbers_are_numbers(client: httpx.Client, value: str) -> None:
    """In JSON a number in quotes is a text, and true is no number."""
    answer = client.post(
        "/classify",
        content=f'{{"labels": ["a"], "lambda": {value}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("invalid_request", "malformed_json")
