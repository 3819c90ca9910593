"""Transport that lies, stalls, floods or leaves: a status or a closed connection, no harm."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

_HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
_JSON = b"Content-Type: application/json\r\n"
_PART = b'--b\r\nContent-Disposition: form-data; name="video"; filename="f"\r\n\r\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with short patience."""
    store = tmp_path_factory.mktemp("store")
    publish(store)
    settings = {
        "VTAG_MODEL_STORE": str(store),
        "VTAG_DECODE_WORKERS": "1",
        "VTAG_HEADER_TIMEOUT_SECONDS": "1",
        "VTAG_UPLOAD_STALL_SECONDS": "1",
        "VTAG_UPLOAD_TIMEOUT_SECONDS": "4",
        "VTAG_MAX_UPLOAD_BYTES": "3000000",
        "VTAG_MAX_JSON_BYTES": "1000000",
    }
    with state_folder() as folder, running_service(folder, environment=settings) as running:
        yield running


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good video."""
    path = tmp_path_factory.mktemp("good") / "film.mp4"
    draw_video(path, seconds=2.0, width=160)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def _nothing_stays(service: RunningService) -> Iterator[None]:
    """After every test: no upload on the disk, nothing in flight, ready."""
    yield
    spool = service.log.parent / "data" / "spool"
    _wait(lambda: not any(spool.iterdir()))
    _wait(lambda: _metric(service, 'vtag_inflight_requests{lane="video"}') == 0)
    _wait(lambda: _metric(service, 'vtag_inflight_requests{lane="upload"}') == 0)
    # Workers that were killed with their videos are replaced.
    _wait(lambda: httpx.get(f"{service.url}/readyz", timeout=30).status_code == 200)


def _wait(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def _metric(service: RunningService, name: str) -> float:
    for line in httpx.get(f"{service.url}/metrics", timeout=30).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


def _connect(service: RunningService) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _answer(connection: socket.socket) -> bytes:
    """Everything until the service closes or an answer is complete."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
            head, found, body = data.partition(b"\r\n\r\n")
            size = [line for line in head.lower().split(b"\r\n") if b"content-length:" in line]
            if found and size and len(body) >= int(size[0].split(b":")[1]):
                break
    except ConnectionResetError:
        pass
    return data


def _send(service: RunningService, *pieces: bytes) -> bytes:
    with _connect(service) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return _answer(connection)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def _chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body", "statuses"),
    [
        (b"", b"", {415}),
        (_FORM + b"Content-Length: 0\r\n", b"", {400}),
        (_JSON + b"Content-Length: 0\r\n", b"", {400}),
        (_JSON + b"Content-Length: 2\r\n", b"{}", {422}),
        (_FORM + b"Content-Length: 7\r\n", b"--b--\r\n", {422}),
        (_FORM + b"Content-Length: -5\r\n", b"abc", {400}),
        (_FORM + b"Content-Length: +5\r\n", b"abcde", {400}),
        (_FORM + b"Content-Length: 1e3\r\n", b"abc", {400}),
        (_FORM + b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcde", {400}),
        (_FORM + b"Content-Length: 99999999999999999999999\r\n", b"", {400, 413}),
        (_FORM + b"Content-Length: 9000000\r\n", b"", {413}),
        (_JSON + b"Content-Length: 2000000\r\n", b"", {413}),
        (_FORM + b"Transfer-Encoding: chunked\r\n", b"zz\r\n", {400, 0}),
        (_FORM + b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", {400, 501}),
        (_FORM + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n", {400}),
        (b"Content-Type: multipart/form-data\r\nContent-Length: 3\r\n", b"abc", {400}),
        (b"Content-Type: text/plain\r\nContent-Length: 3\r\n", b"abc", {415}),
        (b"X: " + b"a" * 200_000 + b"\r\n", b"", {400}),
    ],
)
def test_a_request_that_lies_about_its_body_is_refused(
    service: RunningService, headers: bytes, body: bytes, statuses: set[int]
) -> None:
    """Missing, negative, huge, double and smuggled lengths; no type, no boundary, no end."""
    answer = _send(service, _HEAD + headers + b"\r\n" + body)
    assert _status(answer) in statuses, answer[:300]


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd", b"deflate", b"gzip, identity"])
def test_compressed_bodies_are_not_unpacked(service: RunningService, coding: bytes) -> None:
    """A bomb of a thousand to one is 415, before it is read."""
    bomb = zlib.compress(b"\0" * 1_000_000)
    headers = _JSON + b"Content-Encoding: %s\r\nContent-Length: %d\r\n" % (coding, len(bomb))
    assert _status(_send(service, _HEAD + headers + b"\r\n" + bomb)) == 415


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"[" * 10_000 + b"]" * 10_000, {400}),
        (b'{"labels":' * 10_000 + b"1" + b"}" * 10_000, {400}),
        (b'{"labels":["a"],"labels":["b"]}', {400}),
        (b'{"labels":["a"],"threshold":NaN}', {400}),
        (b'{"labels":["a"],"threshold":-Infinity}', {400}),
        (b'{"labels":["a"],"threshold":1e400}', {400}),
        (b'{"labels":["\\ud800"]}', {400}),
        (b'{"labels":["a\\u0000b"]}', {400}),
        (b'{"labels":["\xed\xa0\x80"]}', {400}),
        (b'{"labels":["a"],"__proto__":{"x":1}}', {422}),
        (b'{"labels":["a"],"timeout_s":"5"}', {422}),
        (b'{"labels":{"0":"a"}}', {422}),
        (b'"' + b"a" * 900_000 + b'"', {422}),
        (b"[" + b"1," * 400_000 + b"1]", {422}),
        (b"9" * 100_000, {400}),
        (b"null", {422}),
    ],
)
def test_json_that_is_none_is_refused(
    service: RunningService, body: bytes, statuses: set[int]
) -> None:
    """Depth, double keys, numbers that are none, surrogates, NUL, foreign fields, wrong types."""
    headers = _JSON + b"Content-Length: %d\r\n\r\n" % len(body)
    answer = _send(service, _HEAD + headers + body)
    assert _status(answer) in statuses, answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"".join(b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
                  for _ in range(10_001)) + b"--b--\r\n", {400, 413}),
        (b"--b\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n--b--\r\n", {400}),
        (b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\n--b--\r\n", {400}),
        (_PART + b"abc", {400}),
        (_PART + b"abc\r\n--b", {400}),
        (_PART + b"abc\r\n" + _PART + b"abc\r\n--b--\r\n", {400}),
        (b"\r\n" * 500_000, {400}),
        (b"-" * 1_000_000, {400}),
    ],
)  # fmt: skip
def test_forms_that_are_bombs_are_refused(
    service: RunningService, body: bytes, statuses: set[int]
) -> None:
    """Too many parts, endless headers, no end, two videos, nothing but line ends."""
    headers = _FORM + b"Content-Length: %d\r\n\r\n" % len(body)
    assert _status(_send(service, _HEAD + headers, body)) in statuses


def test_a_boundary_of_100_kilobytes_is_refused(service: RunningService) -> None:
    """As long as a whole header may be, and longer."""
    for size in (1000, 50_000, 100_000):
        kind = b"Content-Type: multipart/form-data; boundary=" + b"b" * size + b"\r\n"
        answer = _send(service, _HEAD + kind + b"Content-Length: 3\r\n\r\nabc")
        assert _status(answer) == 400


def test_an_upload_that_stops_is_408(service: RunningService) -> None:
    """A body that is shorter than it says, then silence: answered after the stall time."""
    start = time.monotonic()
    answer = _send(service, _HEAD + _FORM + b"Content-Length: 1000\r\n\r\n" + _PART)
    assert _status(answer) == 408
    assert time.monotonic() - start > 0.9
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "slow_body"


def test_an_upload_that_trickles_is_408(service: RunningService) -> None:
    """Never silent for long, never done: the whole upload has a bound."""
    with _connect(service) as connection:
        connection.sendall(_HEAD + _FORM + b"Content-Length: 1000000\r\n\r\n" + _PART)
        for _ in range(40):
            time.sleep(0.3)
            try:
                connection.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
            connection.settimeout(0.001)
            try:
                if connection.recv(12, socket.MSG_PEEK):
                    break
            except TimeoutError:
                pass
            finally:
                connection.settimeout(30)
        assert _status(_answer(connection)) == 408


def test_headers_that_never_end_are_cut_off(service: RunningService) -> None:
    """Slowloris, silence, a second request that trickles: closed, descriptors are back."""
    process = psutil.Process(service.process.pid)
    before = process.num_fds()
    silent = [_connect(service) for _ in range(200)]
    slow = [_connect(service) for _ in range(50)]
    again = _connect(service)
    again.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert _status(_answer(again)) == 200
    for connection in (*slow, again):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-A: ")
    for _ in range(4):  # each byte comes in time for a limit between two bytes
        time.sleep(0.3)
        for connection in (*slow, again):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # cut off already
                connection.sendall(b"a")
    for connection in (*silent, *slow, again):
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()
    _wait(lambda: process.num_fds() <= before + 2)


def test_a_flood_of_one_byte_chunks_is_cut_off(service: RunningService, good: bytes) -> None:
    """A million of them cost nobody else their answer, and memory stays as it is."""
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    headers = _HEAD + _FORM + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = _send(service, headers, *(_chunked(b"x" * 10_000, 1)[:-5] for _ in range(100)))
    assert _status(answer) in (0, 400, 413)
    assert process.memory_info().rss - before < 50_000_000
    answer = _send(service, headers, _chunked(_PART + good + b"\r\n--b--\r\n", 1000))
    assert _status(answer) == 422, "honest chunks are read; labels are missing"


def test_a_refused_upload_still_gets_its_answer(service: RunningService) -> None:
    """The rest of the body is thrown away for a while: no reset eats the answer."""
    body = b"x" * 2_000_000
    headers = b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
    with _connect(service) as connection:
        connection.sendall(_HEAD + headers)
        for start in range(0, len(body), 100_000):
            connection.sendall(body[start : start + 100_000])
        assert _status(_answer(connection)) == 415


def test_who_goes_on_after_the_answer_is_cut_off(service: RunningService) -> None:
    """A refused body that never ends does not hold its connection for ever."""
    with _connect(service) as connection:
        connection.sendall(_HEAD + b"Content-Type: text/plain\r\nContent-Length: 9999\r\n\r\nx")
        assert _status(_answer(connection)) == 415
        assert connection.recv(1) == b""  # or the test's own limit of 30 seconds


def test_expect_100_continue_is_answered_before_the_body(
    service: RunningService, good: bytes
) -> None:
    """100 for what will be read, the refusal at once for what will not."""
    expect = b"Expect: 100-continue\r\n"
    with _connect(service) as connection:
        headers = _HEAD + _FORM + expect + b"Content-Length: 99999999\r\n\r\n"
        connection.sendall(headers)
        assert _status(_answer(connection)) == 413
    body = _PART + good + b"\r\n--b--\r\n"
    with _connect(service) as connection:
        connection.sendall(_HEAD + _FORM + expect + b"Content-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert _status(_answer(connection)) == 422


def test_pipelined_requests_are_answered_in_order(service: RunningService) -> None:
    """Ten at once in one packet, a refused one among them."""
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: r%d\r\n\r\n"
    pieces = [get % n for n in range(9)] + [get.replace(b"Host", b"Connection: close\r\nHost") % 9]
    with _connect(service) as connection:
        connection.sendall(b"".join(pieces))
        data = b""
        while part := connection.recv(65536):
            data += part
    assert [data.count(b"x-request-id: r%d\r\n" % n) for n in range(10)] == [1] * 10
    assert data.index(b": r0\r") < data.index(b": r5\r") < data.index(b": r9\r")


@pytest.mark.parametrize("stage", ["receive", "work"])
def test_who_leaves_is_dropped_and_counted(
    service: RunningService, tmp_path: Path, stage: str
) -> None:
    """While uploading, and while queued or decoded behind another: file, place and worker free."""
    stages = ("receive",) if stage == "receive" else ("wait", "decode", "batch", "encode", "answer")

    def left() -> float:
        names = (f'vtag_cancelled_total{{stage="{each}"}}' for each in stages)
        return sum(_metric(service, name) for name in names)

    before = left()
    draw_video(tmp_path / "long.mp4", seconds=20, width=640)
    body = _PART + (tmp_path / "long.mp4").read_bytes()
    body += b'\r\n--b\r\nContent-Disposition: form-data; name="segments"\r\n\r\n{"length": 0.1}'
    body += b"\r\n--b--\r\n"
    head = _HEAD.replace(b"/classify", b"/videos") + _FORM
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    connections = [_connect(service) for _ in range(3)]
    for connection in connections:
        connection.sendall(head + (body if stage == "work" else body[:1000]))
    lane = 'vtag_inflight_requests{lane="%s"}' % ("video" if stage == "work" else "upload")
    _wait(lambda: _metric(service, lane) == 3)
    for connection in connections:
        connection.close()
    _wait(lambda: left() == before + 3)
    assert httpx.get(f"{service.url}/videos", timeout=30).json()["data"] == []


def test_good_traffic_after_all_this_is_as_before(service: RunningService, good: bytes) -> None:
    """The service has answered everything above and still tags."""
    data = {"labels": ["a", "b"]}
    answer = httpx.post(f"{service.url}/classify", files={"video": good}, data=data, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "Traceback" not in service.log.read_text()
