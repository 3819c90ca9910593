"""Problems: one table, RFC 9457 bodies."""

import json
import string

import orjson
from pydantic import BaseModel, Field, ValidationError

from service.errors import PROBLEMS, ApiError, coded, invalid, problem
from service.videoclip import errors as video_errors
from service.videoclip.errors import VideoError


def _body(error: ApiError) -> dict[str, object]:
    answer = problem(error, instance="/classify", request_id="req_1")
    assert answer.media_type == "application/problem+json"
    assert answer.status_code == error.status
    found: dict[str, object] = json.loads(bytes(answer.body))
    return found


def test_a_problem_has_the_members_of_the_contract() -> None:
    """Standard members, ours, and the figures of a limit."""
    body = _body(ApiError("video_too_long", "It is long.", param="video", limit=10, actual=12.5))
    assert body == {
        "type": "/problems/video-too-long",
        "title": "Video is longer than the limit",
        "status": 422,
        "detail": "It is long.",
        "instance": "/classify",
        "code": "video_too_long",
        "request_id": "req_1",
        "retryable": False,
        "param": "video",
        "limit": 10,
        "actual": 12.5,
    }


def test_every_code_of_the_video_core_is_in_the_table() -> None:
    """A new kind of bad video cannot become a 500 by being forgotten here."""
    kinds = [k for k in vars(video_errors).values() if isinstance(k, type)]
    codes = {k.default_code for k in kinds if issubclass(k, VideoError) and k is not VideoError}
    assert codes <= set(PROBLEMS)
    assert all(400 <= PROBLEMS[code].status < 500 for code in codes)


def test_codes_are_plain_and_statuses_are_errors() -> None:
    """Codes become parts of URLs."""
    allowed = set(string.ascii_lowercase + string.digits + "_")
    assert all(set(code) <= allowed for code in PROBLEMS)
    assert all(400 <= kind.status < 600 and kind.title for kind in PROBLEMS.values())


def test_an_unknown_code_of_a_domain_error_falls_back() -> None:
    """The client sees a code of the table, whatever was raised."""
    error = coded(VideoError("Broken.", code="new_code"), fallback="invalid_video", param="video")
    assert (error.code, error.detail, error.param) == ("invalid_video", "Broken.", "video")


class _Options(BaseModel):
    labels: list[str] = Field(max_length=2)
    top_k: int = Field(ge=1)


def test_validation_lists_everything_and_repeats_no_input() -> None:
    """Each mistake with its place and limit; what the client sent is not echoed."""
    try:
        _Options.model_validate({"labels": ["a", "b", "SECRET"], "top_k": 0})
    except ValidationError as error:
        body = _body(invalid(error))
    assert body["param"] == "labels"
    assert (body["limit"], body["actual"]) == (2, 3)
    entries = body["errors"]
    assert isinstance(entries, list)
    assert [entry["param"] for entry in entries] == ["labels", "top_k"]
    assert "SECRET" not in orjson.dumps(body).decode()


def test_values_that_json_cannot_hold_are_left_out() -> None:
    """A domain error may carry any object; only plain values go out."""
    body = _body(ApiError("invalid_video", "No.", limit=3, actual=object()))
    assert "actual" not in body
