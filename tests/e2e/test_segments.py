"""`POST /classify` with segments: tags over time, at once or as events."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.e2e.conftest import make_client
from tests.faults.load import until
from tests.service.videoclip.test_shots import shots, write

Film = Callable[..., bytes]
LABELS = ["a red square", "a green circle", "rain"]
EVENTS = {"Accept": "text/event-stream"}
_ENDED = 'vtag_requests_total{{endpoint="/classify",outcome="{outcome}"}}'


def _classify(
    client: httpx.Client,
    film: bytes,
    segments: Mapping[str, object],
    *,
    headers: dict[str, str] | None = None,
    **fields: object,
) -> httpx.Response:
    data = {"labels": LABELS, "segments": json.dumps(segments), **fields}
    return client.post("/classify", files={"video": film}, data=data, headers=headers)


def _events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_windows_have_tags_beside_those_of_the_video(client: httpx.Client, film: Film) -> None:
    """The answer for the whole video does not change; each window is scored as if it was sent."""
    plain = client.post("/classify", files={"video": film()}, data={"labels": LABELS}).json()
    assert plain["segments"] is None
    answer = _classify(client, film(), {"mode": "windows", "length": 0.8, "overlap": 0.4})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["tags"] == plain["tags"]
    assert np.ravel([(s["start"], s["end"]) for s in body["segments"]]) == pytest.approx(
        [0.0, 0.8, 0.4, 1.2, 0.8, 1.6, 1.2, 2.0]
    )
    assert body["usage"]["frames"] == 3 + 4 * 3
    assert body["timings_ms"]["segments"] > 0
    for segment in body["segments"]:
        assert sum(tag["score"] for tag in segment["tags"]) == pytest.approx(1)
        assert segment["warnings"] == []
        part = json.dumps({"start": segment["start"], "end": segment["end"]})
        alone = client.post(
            "/classify", files={"video": film()}, data={"labels": LABELS, "sampling": part}
        ).json()
        for tag, other in zip(segment["tags"], alone["tags"], strict=True):
            assert tag["label"] == other["label"]
            assert tag["score"] == pytest.approx(other["score"], abs=1e-4)


def test_defaults_parts_and_selections(client: httpx.Client, film: Film) -> None:
    """The length of indexed segments, the part that sampling names, min_score, top_k, none."""
    body = _classify(client, film(), {}).json()
    assert [(s["start"], s["end"]) for s in body["segments"]] == [(0, 1), (1, 2)]
    body = _classify(client, film(), {"length": 0.5}, sampling='{"start": 1}').json()
    assert [(s["start"], s["end"]) for s in body["segments"]] == [(1, 1.5), (1.5, 2)]
    body = _classify(client, film(), {"min_score": 0.5}, scores="independent").json()
    assert all(tag["score"] >= 0.5 for s in body["segments"] for tag in s["tags"])
    assert len(body["tags"]) == 3
    assert all(0 <= s["none_score"] <= 1 for s in body["segments"])
    body = _classify(client, film(), {"length": 0.25, "merge": True}, top_k="1").json()
    assert sum(s["merged"] for s in body["segments"]) == 8
    assert body["segments"][-1]["end"] == 2.0
    names = [s["tags"][0]["label"] for s in body["segments"]]
    assert all(a != b for a, b in itertools.pairwise(names))


def test_shots_are_found(client: httpx.Client, tmp_path: Path) -> None:
    """Segments from cut to cut."""
    film = write(tmp_path / "film.mp4", shots([30, 45, 25])).read_bytes()
    body = _classify(client, film, {"mode": "shots"}).json()
    assert np.ravel([(s["start"], s["end"]) for s in body["segments"]]) == pytest.approx(
        [0, 1.2, 1.2, 3.0, 3.0, 4.0]
    )


@pytest.mark.parametrize(
    ("segments", "fields", "code", "param", "limit", "actual"),
    [
        ({"length": 1, "overlap": 1}, {}, "invalid_segments", "segments.overlap", 1.0, 1.0),
        ({"overlap": 3}, {}, "invalid_segments", "segments.overlap", 1.0, 3.0),
        ({"mode": "shots", "overlap": 1}, {}, "invalid_segments", "segments.overlap", None, 1.0),
        ({"length": 0.1, "overlap": 0.0999}, {}, "too_many_segments", "segments", 2000, 19001),
        ({"length": 0.01}, {}, "invalid_request", "segments.length", 0.1, None),
        ({"length": 1e9}, {}, "invalid_request", "segments.length", 3600, None),
        ({"overlap": -1}, {}, "invalid_request", "segments.overlap", 0, None),
        ({"min_score": 2}, {}, "invalid_request", "segments.min_score", 1, None),
        ({"mode": "scenes"}, {}, "invalid_request", "segments.mode", None, None),
        ({"step": 1}, {}, "invalid_request", "segments.step", None, None),
        ({"merge": True}, {}, "invalid_segments", "segments.merge", None, True),
        ({}, {"sampling": '{"start": 9}'}, "time_range", "video", 2.0, 9.0),
        (
            {},
            {"sampling": '{"mode": "timestamps", "timestamps": [0, 1, 1.5]}'},
            *("invalid_segments", "sampling.mode", None, 3),
        ),
    ],
)
def test_segments_that_cannot_be_are_named(
    client: httpx.Client,
    film: Film,
    segments: Mapping[str, object],
    fields: dict[str, object],
    code: str,
    param: str,
    limit: float | None,
    actual: float | None,
) -> None:
    """Field, value and limit; the same problem whether events or JSON are asked for."""
    for headers in (None, EVENTS):
        answer = _classify(client, film(), segments, headers=headers, **fields)
        body = answer.json()
        assert (answer.status_code, body["code"], body["param"]) == (422, code, param), body
        assert answer.headers["content-type"] == "application/problem+json"
        assert body.get("limit") == limit
        if actual is not None:
            assert body["actual"] == pytest.approx(actual, abs=20)


def test_events_are_the_answer_in_parts(client: httpx.Client, film: Film) -> None:
    """meta, the segments of the JSON answer in order, done."""
    asked = {"length": 0.5, "overlap": 0.25}
    whole = _classify(client, film(), asked).json()
    answer = _classify(client, film(), asked, headers=EVENTS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, meta), *middle, (last, done) = _events(answer.text)
    assert (first, last) == ("meta", "done")
    assert {name for name, _ in middle} == {"segment"}
    assert [data for _, data in middle] == whole["segments"]
    assert meta["tags"] == whole["tags"]
    assert meta["segments_planned"] == done["segments"] == len(middle) == 7
    assert meta["id"] == done["id"]
    assert done["usage"]["frames"] == whole["usage"]["frames"]
    shots_meta = _events(_classify(client, film(), {"mode": "shots"}, headers=EVENTS).text)[0][1]
    assert shots_meta["segments_planned"] is None


def test_a_stream_under_a_key_is_given_again(client: httpx.Client, film: Film) -> None:
    """The same events, without the work; the same body for JSON is another request: 422."""
    headers = {**EVENTS, "Idempotency-Key": "a-stream"}
    asked = {"length": 0.5}
    first = _classify(client, film(), asked, headers=headers)
    again = _classify(client, film(), asked, headers=headers)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert _events(again.text) == _events(first.text)
    assert _events(first.text)[-1][0] == "done"
    other = _classify(client, film(), asked, headers={"Idempotency-Key": "a-stream"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_events_without_segments(client: httpx.Client, film: Film) -> None:
    """meta and done."""
    answer = client.post(
        "/classify", files={"video": film()}, data={"labels": LABELS}, headers=EVENTS
    )
    assert [name for name, _ in _events(answer.text)] == ["meta", "done"]


@pytest.fixture(scope="module")
def slow_client(small_store: Path) -> Iterator[httpx.Client]:
    """A service with room for one clip at a time, and short limits."""
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_MAX_FRAMES": "3",
        "VTAG_MAX_SEGMENT_TAGS": "60",
        "VTAG_EVENT_SILENCE_SECONDS": "0.2",
        "VTAG_DECODE_WORKERS": "1",
    }
    with make_client(settings) as client:
        yield client


def test_one_answer_holds_so_many_tags_and_a_stream_any_number(
    slow_client: httpx.Client, film: Film
) -> None:
    """Memory is bounded: 21 windows of 3 labels are one too many for JSON."""
    long = film(seconds=10.5)
    asked = {"length": 0.5}
    answer = _classify(slow_client, long, asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_segments")
    assert (answer.json()["limit"], answer.json()["actual"]) == (60, 63)
    assert len(_classify(slow_client, long, asked, top_k="2").json()["segments"]) == 21
    events = _events(_classify(slow_client, long, asked, headers=EVENTS).text)
    assert len(events) == 23


def test_a_deadline_ends_a_stream_with_a_problem(slow_client: httpx.Client, film: Film) -> None:
    """After segments that were good; what limited it is named, and it counts as what it became."""
    long = film(seconds=300)
    for seconds in (3, 6, 12, 24, 48):  # so long that there are segments, wherever this runs
        problems = _metric(slow_client, 'vtag_problems_total{code="deadline_exceeded"}')
        failed = _metric(slow_client, _ENDED.format(outcome="5xx"))
        answer = _classify(
            slow_client, long, {"length": 0.2}, headers=EVENTS, timeout_s=str(seconds)
        )
        if answer.status_code == 200 and "event: segment" in answer.text:
            break
    names = [name for name, _ in _events(answer.text)]
    assert names[0] == "meta"
    assert "segment" in names
    name, problem = _events(answer.text)[-1]
    assert (name, problem["code"], problem["status"]) == ("error", "deadline_exceeded", 504)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (problem["param"], problem["limit"]) == ("timeout_s", seconds)
    assert "timeout_s of the request" in problem["detail"]
    until(lambda: _metric(slow_client, _ENDED.format(outcome="5xx")) == failed + 1)
    assert _metric(slow_client, 'vtag_problems_total{code="deadline_exceeded"}') == problems + 1


def test_a_client_that_leaves_stops_the_work(slow_client: httpx.Client, film: Film) -> None:
    """Soon no slot and no worker is busy, the file is gone, and the next request is answered."""
    long = film(seconds=300)
    data = {"labels": LABELS, "segments": json.dumps({"length": 0.2})}
    with slow_client.stream(
        "POST", "/classify", files={"video": long}, data=data, headers=EVENTS
    ) as answer:
        for line in answer.iter_lines():
            if line == "event: segment":
                break
    until(lambda: _metric(slow_client, 'vtag_frame_slots{state="in_use"}') == 0)
    until(lambda: _metric(slow_client, 'vtag_decode_workers{state="busy"}') == 0)
    until(lambda: _metric(slow_client, _ENDED.format(outcome="disconnected")) == 1)
    stages = ("wait", "decode", "batch", "encode", "answer")
    left = [_metric(slow_client, f'vtag_cancelled_total{{stage="{stage}"}}') for stage in stages]
    assert sum(left) == 1
    assert _classify(slow_client, film(), {"length": 1}).status_code == 200


def _metric(client: httpx.Client, name: str) -> float:
    text = client.get("/metrics").text
    found = [line for line in text.splitlines() if line.startswith(name)]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def test_a_long_video_takes_the_memory_of_a_short_one(
    slow_client: httpx.Client, film: Film
) -> None:
    """A minute in twenty chunks: the arena stays two clips, the processes stay small."""
    peaks: list[float] = []
    done = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=slow_client.base_url, timeout=60) as other:
            while not done.wait(0.002):
                peaks.append(_metric(other, 'vtag_frame_arena_bytes{kind="resident"}'))

    watcher = threading.Thread(target=watch)
    before = _resident_bytes()
    watcher.start()
    try:
        while not any(peaks):  # a busy machine may look between two chunks only
            answer = _classify(
                slow_client, film(seconds=60), {"length": 3}, headers=EVENTS, timeout_s="120"
            )
    finally:
        done.set()
        watcher.join()
    assert _events(answer.text)[-1][0] == "done", _events(answer.text)[-1]
    # One clip of 3 pictures of 16 x 16 that is encoded, one that is decoded; in whole pages.
    assert 0 < max(peaks) <= 2 * 4096
    assert _resident_bytes() - before < 60e6


def _resident_bytes() -> int:
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
